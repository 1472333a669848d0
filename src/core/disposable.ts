// SPDX-License-Identifier: Apache-2.0

/** Stops whatever it was returned for; calling it twice is harmless. */
export type Stop = () => void;
