// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace ambient {

/**
 * Runs `work` on a thread of its own and waits for it, for changes that cannot be taken back on the
 * calling thread (unshare). Rethrows the Fault that `work` throws.
 */
void runInShortThread(const std::function<void()>& work);

} // namespace ambient
