/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* bcc includes it; nothing of it is needed. */
