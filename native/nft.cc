// SPDX-License-Identifier: Apache-2.0
#include "nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "address.h"
#include "args.h"
#include "digest.h"
#include "fault.h"
#include "nft_reader.h"

namespace ambient {

namespace {

/** Data types of nft(8), which it stores in NFTA_SET_KEY_TYPE. */
constexpr uint32_t kTypeIpv4 = 7, kTypeIpv6 = 8;
/** Rounds of reading while transactions keep coming. */
constexpr int kAttempts = 10;

struct Snapshot {
    NftTable table;
    std::vector<NftChain> chains;
    std::vector<NftRule> rules;
    std::vector<NftSet> sets;
};

[[noreturn]] void changing(const std::string& what) {
    fail(EAGAIN, "netlink", what, "it changed during every attempt to read it");
}

/** Several dumps make one picture only when no transaction came between them. */
template <class Read> auto consistently(NftReader& reader, const std::string& what, Read read) {
    for (int attempt = 0; attempt < kAttempts; attempt++) {
        const uint32_t before = reader.generation();
        try {
            auto result = read();
            if (reader.generation() == before) return result;
        } catch (const Fault& fault) {
            // An object of the first dump that was gone before the second.
            if (fault.error != ENOENT || reader.generation() == before) throw;
        }
    }
    changing(what);
}

/**
 * A kernel trap: a transaction counts the generation up a moment before it makes its objects the
 * valid ones. A writer that loses the CPU between the two has readers see the old table, the new
 * one or both within one generation. So the table has to be the same one afterwards.
 */
std::optional<Snapshot> readWhole(NftReader& reader, uint8_t family, const std::string& name) {
    const std::string what = "read nf_tables table " + name;
    for (int attempt = 0; attempt < kAttempts; attempt++) {
        std::optional<Snapshot> snapshot =
            consistently(reader, what, [&]() -> std::optional<Snapshot> {
                std::optional<NftTable> table = reader.table(family, name);
                if (!table) return std::nullopt;
                return Snapshot{*table, reader.chains(family, name), reader.rules(family, name),
                                reader.sets(family, name)};
            });
        if (!snapshot) return std::nullopt;
        std::optional<NftTable> after = reader.table(family, name);
        if (after && after->handle == snapshot->table.handle) return snapshot;
    }
    changing(what);
}

uint8_t familyArgument(const Args& args) {
    const std::string name = args.string(1, "family");
    std::optional<uint8_t> family = nftFamily(name);
    if (!family) fail(EINVAL, "netlink", "read nf_tables family \"" + name + "\"");
    return *family;
}

std::string keyText(const NftSet& set, const std::vector<uint8_t>& key) {
    // The catch-all element has no key; nft(8) writes it so.
    if (key.empty()) return "*";
    if (set.keyType == kTypeIpv4 && key.size() == 4) return formatIp(AF_INET, key.data(), 4);
    if (set.keyType == kTypeIpv6 && key.size() == 16) return formatIp(AF_INET6, key.data(), 16);
    std::string text;
    for (uint8_t byte : key) {
        char hex[3];
        std::snprintf(hex, sizeof(hex), "%02x", byte);
        text += hex;
    }
    return text;
}

/** The key before `key`, for an interval's end, which the kernel keeps exclusive. */
std::vector<uint8_t> before(std::vector<uint8_t> key) {
    for (size_t i = key.size(); i-- > 0;) {
        if (key[i]-- != 0) break;
    }
    return key;
}

struct NamedElement {
    std::string key, comment;
};

/** Joins the kernel's pairs of start and end into "first" or "first-last". */
std::vector<NamedElement> intervals(const NftSet& set, std::vector<NftElement> elements) {
    const auto isEnd = [](const NftElement& e) {
        return (e.flags & NFT_SET_ELEM_INTERVAL_END) != 0;
    };
    std::sort(elements.begin(), elements.end(), [&](const NftElement& a, const NftElement& b) {
        return a.key != b.key ? a.key < b.key : isEnd(a) && !isEnd(b);
    });
    std::vector<NamedElement> result;
    for (size_t i = 0; i < elements.size(); i++) {
        if (isEnd(elements[i])) continue;
        // Without an end it reaches to the highest key.
        std::vector<uint8_t> last(elements[i].key.size(), 0xff);
        if (i + 1 < elements.size() && !last.empty()) last = before(elements[i + 1].key);
        std::string text = keyText(set, elements[i].key);
        if (last != elements[i].key) text += "-" + keyText(set, last);
        result.push_back({text, elements[i].comment});
    }
    return result;
}

Napi::Object chainObject(Napi::Env env, const NftChain& chain) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", chain.name);
    object.Set("type", chain.type);
    object.Set("hook", chain.hook);
    object.Set("priority", chain.priority);
    object.Set("policy", chain.policy);
    return object;
}

Napi::Object ruleObject(Napi::Env env, const NftRule& rule) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("chain", rule.chain);
    object.Set("handle", bigint(env, rule.handle));
    object.Set("comment", rule.comment);
    object.Set("jump", rule.jump);
    object.Set("digest", digestText(rule.digest));
    object.Set("packets", bigint(env, rule.packets));
    object.Set("bytes", bigint(env, rule.bytes));
    return object;
}

/** Copies a vector into a JavaScript array. */
template <class T, class Convert>
Napi::Array arrayOf(Napi::Env env, const std::vector<T>& items, Convert convert) {
    Napi::Array array = Napi::Array::New(env, items.size());
    for (size_t i = 0; i < items.size(); i++) {
        Napi::HandleScope scope(env);
        array.Set(static_cast<uint32_t>(i), convert(items[i]));
    }
    return array;
}

} // namespace

Napi::Value nftTables(const Napi::CallbackInfo& info) {
    NftReader reader(Args(info).netns(0));
    reader.generation();
    return arrayOf(info.Env(), reader.tables(),
                   [&](const std::string& name) { return Napi::String::New(info.Env(), name); });
}

Napi::Value nftChains(const Napi::CallbackInfo& info) {
    NftReader reader(Args(info).netns(0));
    reader.generation();
    return arrayOf(info.Env(), reader.chains(NFPROTO_UNSPEC), [&](const NftChain& chain) {
        Napi::Object object = Napi::Object::New(info.Env());
        object.Set("family", nftFamilyName(chain.family));
        object.Set("table", chain.table);
        object.Set("name", chain.name);
        return object;
    });
}

Napi::Value nftTable(const Napi::CallbackInfo& info) {
    Args args(info);
    Napi::Env env = info.Env();
    const uint8_t family = familyArgument(args);
    const std::string name = args.string(2, "name");
    NftReader reader(args.netns(0));
    std::optional<Snapshot> snapshot = readWhole(reader, family, name);
    if (!snapshot) return env.Undefined();
    std::vector<std::string> named;
    for (const NftSet& set : snapshot->sets) {
        if ((set.flags & NFT_SET_ANONYMOUS) == 0) named.push_back(set.name);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("comment", snapshot->table.comment);
    result.Set("dormant", snapshot->table.dormant);
    result.Set("chains", arrayOf(env, snapshot->chains,
                                 [&](const NftChain& chain) { return chainObject(env, chain); }));
    result.Set("rules", arrayOf(env, snapshot->rules,
                                [&](const NftRule& rule) { return ruleObject(env, rule); }));
    result.Set("sets", arrayOf(env, named, [&](const std::string& set) {
                   return Napi::String::New(env, set);
               }));
    return result;
}

Napi::Value nftSet(const Napi::CallbackInfo& info) {
    Args args(info);
    Napi::Env env = info.Env();
    const uint8_t family = familyArgument(args);
    const std::string table = args.string(2, "table");
    const std::string name = args.string(3, "set");
    NftReader reader(args.netns(0));
    const std::string what = "read nf_tables set " + table + " " + name;
    auto result = consistently(reader, what, [&]() {
        std::vector<NftSet> sets = reader.sets(family, table);
        auto set = std::find_if(sets.begin(), sets.end(),
                                [&](const NftSet& candidate) { return candidate.name == name; });
        if (set == sets.end()) fail(ENOENT, "netlink", what);
        std::vector<NftElement> elements = reader.elements(family, table, name);
        if ((set->flags & NFT_SET_INTERVAL) != 0) return intervals(*set, std::move(elements));
        std::vector<NamedElement> named;
        for (const NftElement& element : elements) {
            named.push_back({keyText(*set, element.key), element.comment});
        }
        return named;
    });
    return arrayOf(env, result, [&](const NamedElement& element) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("key", element.key);
        object.Set("comment", element.comment);
        return object;
    });
}

} // namespace ambient
