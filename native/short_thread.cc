// SPDX-License-Identifier: Apache-2.0
#include "short_thread.h"

#include <exception>
#include <system_error>
#include <thread>

#include "fault.h"

namespace ambient {

void runInShortThread(const std::function<void()>& work) {
    std::exception_ptr failure;
    try {
        std::thread thread([&] {
            try {
                work();
            } catch (...) {
                failure = std::current_exception();
            }
        });
        thread.join();
    } catch (const std::system_error& error) {
        fail(error.code().value(), "clone", "start a thread");
    }
    if (failure) std::rethrow_exception(failure);
}

} // namespace ambient
