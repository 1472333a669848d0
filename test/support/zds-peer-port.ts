// SPDX-License-Identifier: Apache-2.0

/** Where each proxy of zds-peer-process.ts listens in its netns. */
export const PROXY_PORT = 15008;
