// SPDX-License-Identifier: Apache-2.0
// A program from start to end on the event loop: its output within bounds, its end within a
// deadline.
#include "spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "env.h"
#include "fault.h"
#include "loop.h"
#include "program.h"

namespace ambient {

namespace {

constexpr uint32_t kMaxTimeout = 10 * 60 * 1000;
constexpr uint32_t kMaxBytes = 1 << 30;
constexpr size_t kMaxArguments = 4096;
/** MAX_ARG_STRLEN of the kernel, with the NUL. */
constexpr size_t kMaxArgument = 128 * 1024;
constexpr size_t kReadSize = 64 * 1024;
/** ms. For the end of a program that ended in time, while nobody looked. */
constexpr uint64_t kGrace = 1000;

/** A pipe of which the program has one end and we the other, which does not block. */
struct Pipe {
    UniqueFd ours, theirs;

    static Pipe open() {
        int fds[2];
        if (::pipe2(fds, O_CLOEXEC) != 0) fail(errno, "pipe2", "read a program's output");
        Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
        // Only our end: the program's is an ordinary blocking one.
        if (::fcntl(pipe.ours.get(), F_SETFL, O_NONBLOCK) != 0) {
            fail(errno, "fcntl", "read a program's output");
        }
        return pipe;
    }
};

/** What one stream of the program said. */
class Output final : Poller::Listener {
  public:
    class Listener {
      public:
        /** New bytes, or the end. May delete the output. */
        virtual void read() = 0;

      protected:
        ~Listener() = default;
    };

    Output(Loop& loop, UniqueFd fd, Listener& listener) : fd_(std::move(fd)), listener_(listener) {
        poller_.emplace(loop, fd_.get(), static_cast<Poller::Listener&>(*this));
        poller_->start(UV_READABLE);
    }

    std::string& bytes() { return bytes_; }
    bool ended() const { return !poller_; }

    void close() {
        poller_.reset();
        fd_.reset();
    }

  private:
    void ready(int, int) override {
        // POLLHUP without data is the end of file, and so is everything else that read(2) tells.
        char chunk[kReadSize];
        ssize_t size = ::read(fd_.get(), chunk, sizeof(chunk));
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (size <= 0)
            close();
        else
            bytes_.append(chunk, static_cast<size_t>(size));
        listener_.read();
    }

    UniqueFd fd_;
    Listener& listener_;
    std::optional<Poller> poller_;
    std::string bytes_;
};

struct Bounds {
    uint32_t timeout, output, errorTail;
};

/** One program; deletes itself when it is settled. */
class Running final : Closable, Poller::Listener, Timer::Listener, Output::Listener {
  public:
    Running(Napi::Env env, Started started, UniqueFd output, UniqueFd error, const Bounds& bounds)
        : env_(env), loop_(*EnvState::of(env).loop), context_(env, "ambient.spawn"),
          deferred_(Napi::Promise::Deferred::New(env)), started_(std::move(started)),
          bounds_(bounds), output_(loop_, std::move(output), *this),
          error_(loop_, std::move(error), *this), end_(loop_, started_.pidfd(), *this),
          deadline_(loop_, *this) {
        loop_.add(this);
    }

    Napi::Promise wait() {
        Napi::Promise promise = deferred_.Promise();
        end_.start(UV_READABLE);
        deadline_.start(bounds_.timeout);
        return promise;
    }

    void shutdown() override { delete this; }

  private:
    ~Running() { loop_.remove(this); }

    void ready(int, int) override {
        exited_ = true;
        end_.close();
        settleIfOver();
    }

    void expired() override {
        // libuv runs timers before it looks at fds: after a long callback both may be due.
        pollfd ended = {started_.pidfd(), POLLIN, 0};
        if (!graced_ && !exited_ && ::poll(&ended, 1, 0) > 0) {
            graced_ = true;
            deadline_.start(kGrace);
        } else {
            stop("timeout");
        }
    }

    void read() override {
        std::string& error = error_.bytes();
        if (error.size() > bounds_.errorTail) error.erase(0, error.size() - bounds_.errorTail);
        if (output_.bytes().size() > bounds_.output)
            stop("output");
        else
            settleIfOver();
    }

    void stop(const char* why) {
        if (stopped_ == nullptr) stopped_ = why;
        started_.kill();
        // Something outside the session may hold the pipes: the end must come all the same.
        output_.close();
        error_.close();
        settleIfOver();
    }

    void settleIfOver() {
        if (exited_ && output_.ended() && error_.ended()) settle();
    }

    void settle() {
        // JavaScript runs when the scope below ends, and must find every fd closed.
        const int status = started_.reap();
        {
            Napi::HandleScope scope(env_);
            Napi::CallbackScope callback(env_, context_);
            Napi::Object result = Napi::Object::New(env_);
            const bool exited = status >= 0 && WIFEXITED(status);
            const bool signalled = status >= 0 && WIFSIGNALED(status);
            result.Set("status",
                       exited ? Napi::Number::New(env_, WEXITSTATUS(status)) : env_.Null());
            result.Set("signal",
                       signalled ? Napi::Number::New(env_, WTERMSIG(status)) : env_.Null());
            result.Set("stopped",
                       stopped_ != nullptr ? Napi::String::New(env_, stopped_) : env_.Null());
            result.Set("stdout", textOf(output_));
            result.Set("stderr", textOf(error_));
            deferred_.Resolve(result);
        }
        delete this;
    }

    Napi::Value textOf(Output& output) {
        return Napi::String::New(env_, output.bytes().data(), output.bytes().size());
    }

    Napi::Env env_;
    Loop& loop_;
    Napi::AsyncContext context_;
    Napi::Promise::Deferred deferred_;
    Started started_;
    Bounds bounds_;
    Output output_, error_;
    Poller end_;
    Timer deadline_;
    bool exited_ = false;
    bool graced_ = false;
    const char* stopped_ = nullptr;
};

std::vector<std::string> strings(const Fields& options, const char* key) {
    Napi::Value value = options.raw().Get(key);
    const std::string name = std::string("options.") + key;
    if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), name + " must be an array");
    Napi::Array array = value.As<Napi::Array>();
    if (array.Length() > kMaxArguments) {
        throw Napi::TypeError::New(value.Env(), name + " has more than 4096 entries");
    }
    std::vector<std::string> list;
    for (uint32_t i = 0; i < array.Length(); i++) {
        Napi::Value entry = array.Get(i);
        const std::string text = entry.IsString() ? entry.As<Napi::String>().Utf8Value() : "";
        if (!entry.IsString() || text.size() >= kMaxArgument ||
            text.find('\0') != std::string::npos) {
            throw Napi::TypeError::New(value.Env(),
                                       name + "[" + std::to_string(i) +
                                           "] must be a string of less than 128 KiB without NUL");
        }
        list.push_back(text);
    }
    return list;
}

UniqueFd inputOf(const Fields& options) {
    if (!options.has("stdin")) {
        UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        if (!null) fail(errno, "open", "open /dev/null");
        return null;
    }
    Napi::Value value = options.raw().Get("stdin");
    if (!value.IsBuffer())
        throw Napi::TypeError::New(value.Env(), "options.stdin must be a Buffer");
    auto buffer = value.As<Napi::Buffer<uint8_t>>();
    return memoryFile(buffer.Data(), buffer.Length());
}

} // namespace

Napi::Value spawn(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields options = args.object(1, "options");
    const Bounds bounds = {options.number("timeoutMs", kMaxTimeout),
                           options.number("maxStdout", kMaxBytes),
                           options.number("maxStderr", kMaxBytes)};
    Program program = {strings(options, "argv"), strings(options, "env"), -1, -1, -1};
    if (program.argv.empty()) throw Napi::TypeError::New(info.Env(), "options.argv is empty");
    const int netns = args.netns(0);
    try {
        UniqueFd input = inputOf(options);
        Pipe output = Pipe::open(), error = Pipe::open();
        program.input = input.get();
        program.output = output.theirs.get();
        program.error = error.theirs.get();
        Started started = start(program, netns);
        // From here on the pipes end when the program's ends do.
        output.theirs.reset();
        error.theirs.reset();
        return (new Running(info.Env(), std::move(started), std::move(output.ours),
                            std::move(error.ours), bounds))
            ->wait();
    } catch (const Fault& fault) {
        Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(info.Env());
        deferred.Reject(toError(info.Env(), fault).Value());
        return deferred.Promise();
    }
}

} // namespace ambient
