/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The oldest kernel that programs must run on; newer ones have all that it has. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
