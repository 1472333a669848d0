// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace ambient {

/** Kernel ids of our filters' programs on one interface; 0: none. */
struct TcState {
    uint32_t ingress = 0;
    uint32_t egress = 0;
};

/** Puts the program at our place on the interface, replacing what is there in one step. */
void tcAttach(int netns, uint32_t ifindex, bool ingress, int program);
TcState tcState(int netns, uint32_t ifindex);
/** Removes our filters, and the clsact qdisc when nobody else has a filter on it. Idempotent. */
void tcDetach(int netns, uint32_t ifindex);

} // namespace ambient
