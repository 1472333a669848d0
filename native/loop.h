// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>
#include <uv.h>

#include <set>
#include <vector>

namespace ambient {

/** Something that lives on an event loop and must end with it. */
class Closable {
  public:
    /** Closes what is open, without calling JavaScript. May delete the object. */
    virtual void shutdown() = 0;

  protected:
    ~Closable() = default;
};

/**
 * The event loop of one environment and what we have open on it. At the environment's end it closes
 * everything and waits for libuv's close callbacks: a worker whose loop still holds handles aborts.
 */
class Loop {
  public:
    explicit Loop(Napi::Env env);
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    uv_loop_t* uv() const { return uv_; }
    void add(Closable* closable) { closables_.insert(closable); }
    void remove(Closable* closable) { closables_.erase(closable); }
    void handleOpened() { handles_++; }
    void handleClosed();

  private:
    ~Loop() = default;
    void shutdown(napi_async_cleanup_hook_handle hook);

    uv_loop_t* uv_ = nullptr;
    std::set<Closable*> closables_;
    size_t handles_ = 0;
    /** Set once the environment is ending. */
    napi_async_cleanup_hook_handle ending_ = nullptr;
};

/**
 * Watches one fd for readiness until it is closed, also after an error on it: whoever listens takes
 * the error off the fd or closes the poller. The fd stays the owner's, who closes the poller first.
 */
class Poller {
  public:
    class Listener {
      public:
        /** `status` is 0 or a negative errno; may delete the poller. */
        virtual void ready(int status, int events) = 0;

      protected:
        ~Listener() = default;
    };

    Poller(Loop& loop, int fd, Listener& listener);
    ~Poller() { close(); }
    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;

    void start(int events);
    void close();

  private:
    static void told(uv_poll_t* handle, int status, int ready);

    Loop& loop_;
    Listener& listener_;
    uv_poll_t* handle_;
    int events_ = 0;
};

/** One deadline. */
class Timer {
  public:
    class Listener {
      public:
        /** May delete the timer. */
        virtual void expired() = 0;

      protected:
        ~Listener() = default;
    };

    Timer(Loop& loop, Listener& listener);
    ~Timer() { close(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void start(uint64_t milliseconds);
    void close();

  private:
    Loop& loop_;
    uv_timer_t* handle_;
};

/** A JavaScript function that the event loop calls, until it is dropped. */
class Callback {
  public:
    Callback(Napi::Function function, const char* name)
        : function_(Napi::Persistent(function)), context_(function.Env(), name) {}

    /**
     * Open a HandleScope first. An exception becomes an uncaught one, as in any event listener, and
     * never unwinds into libuv; the result is then empty.
     */
    Napi::Value call(Napi::Object receiver, const std::vector<napi_value>& arguments) const;

  private:
    Napi::FunctionReference function_;
    Napi::AsyncContext context_;
};

} // namespace ambient
