// SPDX-License-Identifier: Apache-2.0
// The init table; what each function does is said in src/native/binding.ts.
#include <napi.h>

#include "accept.h"
#include "bpf.h"
#include "bpf_effective.h"
#include "bpf_orphan.h"
#include "bpf_pinned.h"
#include "clock.h"
#include "connect.h"
#include "conntrack.h"
#include "enter.h"
#include "env.h"
#include "fault.h"
#include "ipset.h"
#include "link.h"
#include "mount.h"
#include "netns.h"
#include "netns_scope.h"
#include "nft.h"
#include "nft_delete.h"
#include "rename.h"
#include "route.h"
#include "rule.h"
#include "seqpacket.h"
#include "sockdiag.h"
#include "socket.h"
#include "spawn.h"
#include "syn.h"
#include "sysctl.h"
#include "watch.h"
#include "xtables.h"

namespace ambient {

namespace {

/** Raised when a function changes its meaning; src/native/load.ts compares. */
constexpr int kAbiVersion = 14;

template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
void add(Napi::Object& exports, const char* name) {
    exports.Set(name, Napi::Function::New<guarded<Function>>(exports.Env(), name));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(new EnvState(env));
    prepareNetnsScopes();
    exports.Set("abiVersion", kAbiVersion);
    add<setErrorClass>(exports, "setErrorClass");

    add<closeFd>(exports, "close");
    add<netnsOpen>(exports, "netnsOpen");
    add<netnsCreate>(exports, "netnsCreate");
    add<netnsIdentify>(exports, "netnsIdentify");
    add<netnsCookie>(exports, "netnsCookie");
    add<openFds>(exports, "openFds");

    add<links>(exports, "links");
    add<addresses>(exports, "addresses");
    add<routes>(exports, "routes");
    add<rules>(exports, "rules");
    add<vethAdd>(exports, "vethAdd");
    add<linkUp>(exports, "linkUp");
    add<linkDelete>(exports, "linkDelete");
    add<addressAdd>(exports, "addressAdd");
    add<addressDelete>(exports, "addressDelete");
    add<routeReplace>(exports, "routeReplace");
    add<routeDelete>(exports, "routeDelete");
    add<ruleAdd>(exports, "ruleAdd");
    add<ruleDelete>(exports, "ruleDelete");
    add<routeWatch>(exports, "routeWatch");

    add<sysctlGet>(exports, "sysctlGet");
    add<sysctlSet>(exports, "sysctlSet");
    add<mountBpffs>(exports, "mountBpffs");
    add<bpffsCreate>(exports, "bpffsCreate");

    add<tcpListen>(exports, "tcpListen");
    add<tcpAccept>(exports, "tcpAccept");
    add<tcpConnect>(exports, "tcpConnect");
    add<udpSocket>(exports, "udpSocket");
    add<originalDestination>(exports, "originalDestination");
    add<localEndpoint>(exports, "localEndpoint");
    add<remoteEndpoint>(exports, "remoteEndpoint");
    add<socketMark>(exports, "socketMark");
    add<synSocket>(exports, "synSocket");
    add<synSend>(exports, "synSend");
    add<sockets>(exports, "sockets");
    add<socketDestroy>(exports, "socketDestroy");

    add<nftTables>(exports, "nftTables");
    add<nftChains>(exports, "nftChains");
    add<nftTable>(exports, "nftTable");
    add<nftSet>(exports, "nftSet");
    add<nftDelete>(exports, "nftDelete");
    add<nftWatch>(exports, "nftWatch");

    add<xtables>(exports, "xtables");
    add<ipsetDestroy>(exports, "ipsetDestroy");
    add<conntrackReplies>(exports, "conntrackReplies");

    add<spawn>(exports, "spawn");
    add<enterNetns>(exports, "enterNetns");
    add<enterRoot>(exports, "enterRoot");

    add<clockState>(exports, "clockState");

    add<fileExchange>(exports, "fileExchange");
    add<fileMove>(exports, "fileMove");

    add<bpfOpen>(exports, "bpfOpen");
    add<bpfVerify>(exports, "bpfVerify");
    add<bpfNetnsLinked>(exports, "bpfNetnsLinked");
    add<bpfFilterState>(exports, "bpfFilterState");
    add<bpfFilterDetach>(exports, "bpfFilterDetach");
    add<bpfCgroupFlags>(exports, "bpfCgroupFlags");
    add<bpfCgroupPrograms>(exports, "bpfCgroupPrograms");
    add<bpfRemove>(exports, "bpfRemove");
    add<bpfPinned>(exports, "bpfPinned");
    add<bpfVersions>(exports, "bpfVersions");

    add<seqpacketListen>(exports, "seqpacketListen");
    add<seqpacketConnect>(exports, "seqpacketConnect");
    return exports;
}

} // namespace

} // namespace ambient

static Napi::Object initAddon(Napi::Env env, Napi::Object exports) {
    return ambient::init(env, exports);
}

NODE_API_MODULE(ambient, initAddon)
