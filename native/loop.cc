// SPDX-License-Identifier: Apache-2.0
#include "loop.h"

#include <cerrno>

#include "env.h"
#include "fault.h"

namespace ambient {

EnvState::EnvState(Napi::Env env) : loop(new Loop(env)) {}

Loop::Loop(Napi::Env env) {
    if (napi_get_uv_event_loop(env, &uv_) != napi_ok) {
        throw Napi::Error::New(env, "this environment has no event loop");
    }
    auto hook = [](napi_async_cleanup_hook_handle handle, void* self) {
        static_cast<Loop*>(self)->shutdown(handle);
    };
    if (napi_add_async_cleanup_hook(env, hook, this, nullptr) != napi_ok) {
        throw Napi::Error::New(env, "this environment takes no cleanup hook");
    }
}

void Loop::shutdown(napi_async_cleanup_hook_handle hook) {
    ending_ = hook;
    // A guard handle, so that the last close inside the loop below does not delete us.
    handleOpened();
    while (!closables_.empty()) {
        Closable* closable = *closables_.begin();
        closables_.erase(closables_.begin());
        closable->shutdown();
    }
    handleClosed();
}

void Loop::handleClosed() {
    handles_--;
    if (ending_ == nullptr || handles_ > 0) return;
    napi_remove_async_cleanup_hook(ending_);
    delete this;
}

namespace {

/** Nothing may unwind into libuv. What still throws here is an environment that is being terminated
 * and refuses every call: nobody is left to be told, and its cleanup hook closes what is open. */
template <class Body> void contained(Body body) noexcept {
    try {
        body();
    } catch (const Napi::Error&) {
    }
}

/** libuv keeps using a handle until its close callback, so handles live on the heap. */
template <class Handle> void closeHandle(Loop& loop, Handle* handle) {
    handle->data = &loop;
    uv_close(reinterpret_cast<uv_handle_t*>(handle), [](uv_handle_t* closed) {
        auto* owner = static_cast<Loop*>(closed->data);
        delete reinterpret_cast<Handle*>(closed);
        owner->handleClosed();
    });
}

} // namespace

Poller::Poller(Loop& loop, int fd, Listener& listener)
    : loop_(loop), listener_(listener), handle_(new uv_poll_t{}) {
    int status = uv_poll_init(loop.uv(), handle_, fd);
    if (status != 0) {
        delete handle_;
        fail(-status, "epoll_ctl", "watch fd " + std::to_string(fd));
    }
    handle_->data = this;
    loop.handleOpened();
}

void Poller::start(int events) {
    events_ = events;
    int status = uv_poll_start(handle_, events, told);
    if (status != 0) fail(-status, "epoll_ctl", "watch an fd");
}

void Poller::told(uv_poll_t* handle, int status, int ready) {
    auto& poller = *static_cast<Poller*>(handle->data);
    // libuv has stopped the handle at EPOLLERR. That is not the end of a netlink socket that was
    // overrun (ENOBUFS), nor of one whose peer has died with datagrams still to be read.
    if (status < 0) uv_poll_start(handle, poller.events_, told);
    contained([&] { poller.listener_.ready(status, ready); });
}

void Poller::close() {
    if (handle_ == nullptr) return;
    closeHandle(loop_, handle_);
    handle_ = nullptr;
}

Timer::Timer(Loop& loop, Listener& listener) : loop_(loop), handle_(new uv_timer_t{}) {
    uv_timer_init(loop.uv(), handle_);
    handle_->data = &listener;
    loop.handleOpened();
}

void Timer::start(uint64_t milliseconds) {
    // libuv counts from when this turn of the loop began, which may be longer ago than the
    // deadline.
    uv_update_time(loop_.uv());
    uv_timer_start(
        handle_,
        [](uv_timer_t* handle) {
            contained([&] { static_cast<Listener*>(handle->data)->expired(); });
        },
        milliseconds, 0);
}

void Timer::close() {
    if (handle_ == nullptr) return;
    closeHandle(loop_, handle_);
    handle_ = nullptr;
}

Napi::Value Callback::call(Napi::Object receiver, const std::vector<napi_value>& arguments) const {
    Napi::Env env = receiver.Env();
    napi_value result = nullptr;
    napi_status status = napi_make_callback(env, context_, receiver, function_.Value(),
                                            arguments.size(), arguments.data(), &result);
    if (status == napi_ok) return Napi::Value(env, result);
    napi_value exception = nullptr;
    if (status == napi_pending_exception &&
        napi_get_and_clear_last_exception(env, &exception) == napi_ok) {
        napi_fatal_exception(env, exception);
    }
    return Napi::Value();
}

} // namespace ambient
