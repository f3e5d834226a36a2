/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What bcc asks of the kernel's configuration. */
#define CONFIG_BPF_SYSCALL 1
