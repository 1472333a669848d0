// SPDX-License-Identifier: Apache-2.0
// The face of the BPF side towards JavaScript: one object per opened directory. Structures of
// bpf/abi.h are read and written here and in bpf_pods.cc and bpf_state.cc, nowhere else.
#include "bpf.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "args.h"
#include "bpf_events.h"
#include "bpf_link.h"
#include "bpf_node.h"
#include "bpf_pods.h"
#include "bpf_state.h"
#include "bpf_values.h"
#include "fault.h"
#include "netns_scope.h"
#include "tc.h"

namespace ambient {

namespace {

using Node = std::shared_ptr<std::unique_ptr<BpfNode>>;

const BpfNode& opened(const Node& node) {
    if (*node == nullptr) fail(EBADF, "bpf", "use the BPF programs", "they were closed");
    return **node;
}

UniqueFd openTarget(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) fail(errno, "open", "open cgroup " + path);
    return fd;
}

uint64_t inodeOf(int fd) {
    struct stat status;
    if (::fstat(fd, &status) != 0) fail(errno, "fstat", "identify a target of a BPF link");
    return status.st_ino;
}

Napi::Value linkObject(Napi::Env env, const std::optional<LinkState>& state) {
    if (!state) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("program", state->program);
    object.Set("target", bigint(env, state->target));
    return object;
}

Napi::Object describePrograms(Napi::Env env, const BpfNode& node) {
    Napi::Object programs = Napi::Object::New(env);
    for (const auto& [name, fd] : node.programs())
        programs.Set(name, programId(fd.get()));
    return programs;
}

Napi::Object describeRefused(Napi::Env env, const BpfNode& node) {
    Napi::Object refused = Napi::Object::New(env);
    for (const auto& [name, reason] : node.refused())
        refused.Set(name, reason);
    return refused;
}

/** Adds a method whose body gets the opened node. */
template <class Body>
void define(Napi::Object& object, const Node& node, const char* name, Body body) {
    object.Set(name, method(object.Env(), name,
                            [node, body](const Napi::CallbackInfo& info) -> Napi::Value {
                                return body(info, opened(node));
                            }));
}

void bindLinks(Napi::Object& object, const Node& node) {
    define(object, node, "linkCgroup",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               Args args(info);
               const std::string program = args.string(0, "program");
               UniqueFd target = openTarget(args.string(1, "cgroup"));
               bpf.keepPinned();
               ensureLink(bpf.dir(), args.string(2, "pin"), bpf.program(program),
                          attachType(program), target.get(), inodeOf(target.get()));
               return info.Env().Undefined();
           });
    define(object, node, "holdCgroup",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               Args args(info);
               const std::string program = args.string(0, "program");
               UniqueFd target = openTarget(args.string(1, "cgroup"));
               return Napi::Number::New(
                   info.Env(),
                   makeLink(bpf.program(program), attachType(program), target.get()).release());
           });
    define(object, node, "linkNetns",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               Args args(info);
               const std::string program = args.string(0, "program");
               const int netns = args.fd(1, "netns");
               bpf.keepPinned();
               ensureLink(bpf.dir(), args.string(2, "pin"), bpf.program(program),
                          attachType(program), netns, inodeOf(netns));
               return info.Env().Undefined();
           });
    define(object, node, "link",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               return linkObject(info.Env(),
                                 linkState(bpf.dir() + "/" + Args(info).string(0, "pin")));
           });
    define(object, node, "unpin",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const std::string path = bpf.dir() + "/" + Args(info).string(0, "pin");
               if (::unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR)
                   return info.Env().Undefined();
               if (errno != EISDIR && errno != EPERM) fail(errno, "unlink", "remove " + path);
               removeTree(path);
               return info.Env().Undefined();
           });
    define(object, node, "pins",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const auto names =
                   directoryEntries(bpf.dir() + "/" + Args(info).string(0, "directory"));
               Napi::Array result = Napi::Array::New(info.Env(), names.size());
               for (size_t i = 0; i < names.size(); i++)
                   result.Set(static_cast<uint32_t>(i), names[i]);
               return result;
           });
    define(object, node, "tcAttach",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               Args args(info);
               const std::string direction = args.string(2, "direction");
               tcAttach(args.fd(0, "netns"), args.number(1, "ifindex"), direction == "ingress",
                        bpf.program(args.string(3, "program")));
               return info.Env().Undefined();
           });
}

void bindPods(Napi::Object& object, const Node& node) {
    define(object, node, "podWrite",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const uint64_t cookie = cookieAt(info, 0);
               writePod(bpf, cookie, podOf(Args(info), 1, cookie));
               return info.Env().Undefined();
           });
    define(object, node, "podFlags",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const uint64_t cookie = cookieAt(info, 0);
               writePodFlags(bpf, cookie, podOf(Args(info), 1, cookie).pod.flags);
               return info.Env().Undefined();
           });
    define(object, node, "podRead",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const auto pod = readPod(bpf, cookieAt(info, 0));
               return pod ? Napi::Value(toObject(info.Env(), *pod)) : info.Env().Undefined();
           });
    define(object, node, "podDifferences",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const uint64_t cookie = cookieAt(info, 0);
               const auto names = podDifferences(bpf, cookie, podOf(Args(info), 1, cookie));
               Napi::Array result = Napi::Array::New(info.Env(), names.size());
               for (size_t i = 0; i < names.size(); i++)
                   result.Set(static_cast<uint32_t>(i), names[i]);
               return result;
           });
    define(object, node, "podDelete",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               deletePod(bpf, cookieAt(info, 0));
               return info.Env().Undefined();
           });
    define(object, node, "podCookies",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const auto cookies = podCookies(bpf);
               Napi::Array result = Napi::Array::New(info.Env(), cookies.size());
               for (size_t i = 0; i < cookies.size(); i++)
                   result.Set(static_cast<uint32_t>(i), bigint(info.Env(), cookies[i]));
               return result;
           });
    define(object, node, "counters",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const ambient_counters counters = readCounters(bpf, cookieAt(info, 0));
               Napi::Object result = Napi::Object::New(info.Env());
               for (unsigned i = 0; i < AMBIENT_VERDICTS; i++)
                   result.Set(verdictName(i), static_cast<double>(counters.verdict[i]));
               return result;
           });
    define(object, node, "hasListener",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               const uint32_t port = Args(info).number(1, "port", UINT16_MAX);
               return Napi::Boolean::New(
                   info.Env(), hasListener(bpf, cookieAt(info, 0), static_cast<uint16_t>(port)));
           });
    define(object, node, "adoptListeners",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               adopt(bpf, Args(info).fd(0, "netns"), idsAt(info, 1, "cgroups"));
               return info.Env().Undefined();
           });
    define(object, node, "erase",
           [](const Napi::CallbackInfo& info, const BpfNode& bpf) -> Napi::Value {
               eraseFrom(bpf.dir() + "/" + Args(info).string(0, "pin"), cookieAt(info, 1));
               return info.Env().Undefined();
           });
}

} // namespace

Napi::Value bpfOpen(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string dir = args.string(0, "dir");
    auto node = std::make_shared<std::unique_ptr<BpfNode>>(
        std::make_unique<BpfNode>(BpfNode::open(dir, knobsOf(args.object(1, "knobs")))));
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("generation", opened(node).generation());
    object.Set("programs", describePrograms(info.Env(), opened(node)));
    object.Set("refused", describeRefused(info.Env(), opened(node)));
    bindLinks(object, node);
    bindPods(object, node);
    define(object, node, "stateRead",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               return readState(call.Env(), bpf);
           });
    define(object, node, "stateWrite",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               writeState(bpf, Args(call).object(0, "state"));
               return call.Env().Undefined();
           });
    define(object, node, "ztunnelsWrite",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               writeZtunnels(bpf, call);
               return call.Env().Undefined();
           });
    define(object, node, "events",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               return openEvents(call.Env(), bpf.map("events"));
           });
    define(object, node, "tellUntil",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               tellUntil(bpf, uint64Of(call[0], "nanoseconds"));
               return call.Env().Undefined();
           });
    define(object, node, "eventsLost",
           [](const Napi::CallbackInfo& call, const BpfNode& bpf) -> Napi::Value {
               return Napi::Number::New(call.Env(), static_cast<double>(lostEvents(bpf)));
           });
    object.Set("close",
               method(info.Env(), "close", [node](const Napi::CallbackInfo& call) -> Napi::Value {
                   node->reset();
                   return call.Env().Undefined();
               }));
    return object;
}

Napi::Value bpfVerify(const Napi::CallbackInfo& info) {
    if (!info[0].IsBuffer()) throw Napi::TypeError::New(info.Env(), "object must be a Buffer");
    Napi::Buffer<uint8_t> bytes = info[0].As<Napi::Buffer<uint8_t>>();
    const LoadedPrograms loaded = loadForeignObject({"object", bytes.Data(), bytes.Length()});
    Napi::Object refused = Napi::Object::New(info.Env());
    for (const auto& [name, reason] : loaded.refused)
        refused.Set(name, reason);
    return refused;
}

Napi::Value bpfCgroupFlags(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string path = args.string(0, "cgroup");
    UniqueFd cgroup = openTarget(path);
    LIBBPF_OPTS(bpf_prog_query_opts, options);
    const auto type = static_cast<bpf_attach_type>(attachType(args.string(1, "program")));
    if (bpf_prog_query_opts(cgroup.get(), type, &options) != 0)
        fail(errno, "bpf", "look at the programs of cgroup " + path);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("flags", options.attach_flags);
    result.Set("count", options.prog_cnt);
    return result;
}

Napi::Value bpfRemove(const Napi::CallbackInfo& info) {
    removeTree(Args(info).string(0, "dir"));
    return info.Env().Undefined();
}

} // namespace ambient
