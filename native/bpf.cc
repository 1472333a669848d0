// SPDX-License-Identifier: Apache-2.0
// The face of the BPF side towards JavaScript: one object per opened directory. Structures of
// bpf/abi.h are read and written here and in bpf_maps.cc, nowhere else.
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
#include "bpf_maps.h"
#include "bpf_node.h"
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

uint64_t uint64Of(Napi::Value value, const char* name) {
    if (!value.IsBigInt())
        throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a bigint");
    bool lossless = false;
    return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

/** A netns cookie. @throws TypeError. */
uint64_t cookieAt(const Napi::CallbackInfo& info, size_t index) {
    return uint64Of(info[index], "cookie");
}

/** cgroup ids. @throws TypeError. */
std::vector<uint64_t> idsAt(const Napi::CallbackInfo& info, size_t index, const char* name) {
    if (!info[index].IsArray())
        throw Napi::TypeError::New(info.Env(), std::string(name) + " must be an array");
    Napi::Array list = info[index].As<Napi::Array>();
    std::vector<uint64_t> ids;
    for (uint32_t i = 0; i < list.Length(); i++)
        ids.push_back(uint64Of(list.Get(i), name));
    return ids;
}

std::vector<std::string> strings(Napi::Object object, const char* key) {
    std::vector<std::string> all;
    Napi::Value value = object.Get(key);
    if (!value.IsArray())
        throw Napi::TypeError::New(object.Env(), std::string(key) + " must be an array");
    Napi::Array array = value.As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length(); i++)
        all.push_back(stringOf(array.Get(i), key));
    return all;
}

ambient_address optionalAddress(const Fields& fields, const char* key) {
    const std::string text = fields.stringOr(key, "");
    return text.empty() ? ambient_address{} : bpfAddress(text);
}

template <size_t Size> void copyText(char (&to)[Size], const std::string& text, const char* name) {
    if (text.size() > Size)
        fail(EINVAL, "bpf", std::string("keep ") + name, "it is too long: " + text);
    std::memcpy(to, text.data(), text.size());
}

constexpr std::pair<const char*, uint32_t> kFlags[] = {
    {"ipv6", AMBIENT_POD_IPV6},         {"inbound", AMBIENT_POD_INBOUND},
    {"dns", AMBIENT_POD_DNS},           {"dnsListed", AMBIENT_POD_DNS_LISTED},
    {"draining", AMBIENT_POD_DRAINING}, {"retiring", AMBIENT_POD_RETIRING},
    {"beside", AMBIENT_POD_BESIDE},
};

BpfPod podOf(const Args& args, size_t index, uint64_t cookie) {
    const Fields fields = args.object(index, "pod");
    BpfPod pod;
    pod.pod.ip4 = optionalAddress(fields, "ip4");
    pod.pod.ip6 = optionalAddress(fields, "ip6");
    pod.pod.shadow4 = optionalAddress(fields, "shadow4");
    pod.pod.shadow6 = optionalAddress(fields, "shadow6");
    pod.pod.probe4 = bpfAddress(fields.string("probe4"));
    pod.pod.probe6 = bpfAddress(fields.string("probe6"));
    for (const auto& [name, flag] : kFlags)
        if (fields.flag(name)) pod.pod.flags |= flag;
    copyText(pod.pod.sysctls, fields.string("sysctls"), "sysctls");
    copyText(pod.pod.plan, fields.string("plan"), "plan");
    for (const std::string& local : strings(fields.raw(), "locals"))
        pod.locals.push_back(bpfAddress(local));
    for (const std::string& server : strings(fields.raw(), "nameservers"))
        pod.nameservers.push_back(bpfAddress(server));
    for (const std::string& cidr : strings(fields.raw(), "excludes"))
        pod.excludes.push_back(excludeKey(cookie, cidr));
    if (!pod.excludes.empty()) pod.pod.flags |= AMBIENT_POD_EXCLUDES;
    return pod;
}

template <size_t Size> std::string textOf(const char (&from)[Size]) {
    return std::string(from, ::strnlen(from, Size));
}

Napi::Object toObject(Napi::Env env, const ambient_pod& pod) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("ip4", bpfAddressText(pod.ip4));
    object.Set("ip6", bpfAddressText(pod.ip6));
    object.Set("shadow4", bpfAddressText(pod.shadow4));
    object.Set("shadow6", bpfAddressText(pod.shadow6));
    object.Set("probe4", bpfAddressText(pod.probe4));
    object.Set("probe6", bpfAddressText(pod.probe6));
    for (const auto& [name, flag] : kFlags)
        object.Set(name, (pod.flags & flag) != 0);
    object.Set("sysctls", textOf(pod.sysctls));
    object.Set("plan", textOf(pod.plan));
    return object;
}

void range(const Fields& knobs, const char* key, ambient_address& first, ambient_address* mask) {
    const ambient_exclude_key parsed = excludeKey(0, knobs.string(key));
    const uint32_t bits = parsed.prefix_bits - 64;
    auto* bytes = reinterpret_cast<uint8_t*>(&first);
    ambient_address masked = {};
    auto* maskBytes = reinterpret_cast<uint8_t*>(&masked);
    for (uint32_t bit = 0; bit < bits; bit++)
        maskBytes[bit / 8] |= static_cast<uint8_t>(0x80 >> bit % 8);
    first = parsed.address;
    for (size_t i = 0; i < 16; i++)
        bytes[i] &= maskBytes[i];
    if (mask != nullptr) *mask = masked;
}

ambient_knobs knobsOf(const Fields& fields) {
    ambient_knobs knobs = {};
    knobs.ztunnel_mark = fields.number("ztunnelMark");
    knobs.local_mark = fields.number("localMark");
    knobs.mark_mask = fields.number("markMask");
    knobs.verify_mark = fields.number("verifyMark");
    knobs.port_outbound = static_cast<uint16_t>(fields.number("outboundPort", UINT16_MAX));
    knobs.port_inbound = static_cast<uint16_t>(fields.number("inboundPort", UINT16_MAX));
    knobs.port_hbone = static_cast<uint16_t>(fields.number("hbonePort", UINT16_MAX));
    knobs.port_dns = static_cast<uint16_t>(fields.number("dnsPort", UINT16_MAX));
    range(fields, "shadow4", knobs.shadow4, &knobs.shadow4_mask);
    range(fields, "shadow6", knobs.shadow6, &knobs.shadow6_mask);
    range(fields, "spread4", knobs.spread4, nullptr);
    range(fields, "spread6", knobs.spread6, nullptr);
    return knobs;
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

/** Reads the iterator to its end in the netns; -EAGAIN is how the program says that it has seen
 * enough. */
void adopt(const BpfNode& node, int netns, const std::vector<uint64_t>& cgroups) {
    const uint32_t one = 1;
    for (uint64_t cgroup : cgroups) {
        if (bpf_map_update_elem(node.map("adoptable"), &cgroup, &one, BPF_ANY) != 0) {
            fail(errno, "bpf", "write to BPF map adoptable");
        }
    }
    UniqueFd link = makeLink(node.program("ambient_adopt"), BPF_TRACE_ITER, 0);
    {
        NetnsScope scope(netns);
        UniqueFd iterator(bpf_iter_create(link.get()));
        if (!iterator) fail(errno, "bpf", "iterate over the sockets of a netns");
        char nothing[64];
        for (;;) {
            const ssize_t size = ::read(iterator.get(), nothing, sizeof(nothing));
            if (size > 0 || (size < 0 && errno == EINTR)) continue;
            if (size == 0 || errno == EAGAIN) break;
            fail(errno, "read", "iterate over the sockets of a netns");
        }
    }
    for (uint64_t cgroup : cgroups)
        bpf_map_delete_elem(node.map("adoptable"), &cgroup);
}

void writeState(const BpfNode& node, const Fields& fields) {
    const uint32_t zero = 0;
    ambient_state state = {};
    if (bpf_map_lookup_elem(node.map("state"), &zero, &state) != 0)
        fail(errno, "bpf", "read BPF map state");
    if (fields.has("hostCookie")) {
        state.host_cookie = uint64Of(fields.raw().Get("hostCookie"), "hostCookie");
    }
    if (auto slot = fields.optionalNumber("newestSlot", 1)) state.newest_slot = *slot;
    if (auto known = fields.optionalNumber("ztunnelByCgroup", 1)) state.ztunnel_by_cgroup = *known;
    if (auto events = fields.optionalNumber("events", 1)) state.events = *events;
    if (auto probers = fields.optionalNumber("probers", 2)) state.probers = *probers;
    if (bpf_map_update_elem(node.map("state"), &zero, &state, BPF_ANY) != 0)
        fail(errno, "bpf", "write to BPF map state");
}

/** The list replaces what is there; what stays in it is never missing in between. */
void writeZtunnels(const BpfNode& node, const Napi::CallbackInfo& info) {
    const std::vector<uint64_t> wanted = idsAt(info, 0, "cgroups");
    const uint32_t one = 1;
    for (const uint64_t id : wanted) {
        if (bpf_map_update_elem(node.map("ztunnels"), &id, &one, BPF_ANY) != 0) {
            fail(errno, "bpf", "write to BPF map ztunnels");
        }
    }
    for (const uint64_t id : ztunnelIds(node)) {
        if (std::find(wanted.begin(), wanted.end(), id) == wanted.end())
            bpf_map_delete_elem(node.map("ztunnels"), &id);
    }
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
               return readEvents(call.Env(), bpf.map("events"), Args(call).function(0, "told"));
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
