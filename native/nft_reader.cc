// SPDX-License-Identifier: Apache-2.0
#include "nft_reader.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>

#include "fault.h"
#include "nft_digest.h"
#include "nft_expressions.h"

namespace ambient {

namespace {

constexpr std::pair<const char*, uint8_t> kFamilies[] = {
    {"inet", NFPROTO_INET},     {"ip", NFPROTO_IPV4},       {"arp", NFPROTO_ARP},
    {"netdev", NFPROTO_NETDEV}, {"bridge", NFPROTO_BRIDGE}, {"ip6", NFPROTO_IPV6},
};

/** NFTNL_UDATA_*_COMMENT, the same number for tables, rules and elements. */
constexpr uint8_t kCommentType = 0;

uint16_t nftType(uint16_t type) {
    return static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
}

Message nftRequest(uint16_t type, uint16_t flags, uint8_t family) {
    nfgenmsg fixed = {};
    fixed.nfgen_family = family;
    fixed.version = NFNETLINK_V0;
    Message message(nftType(type), flags);
    message.fixed(fixed);
    return message;
}

/** The comment that nft(8) keeps in user data: triples of type, length, value. */
std::string commentIn(const Attribute& userData) {
    for (size_t at = 0; at + 2 <= userData.size;) {
        const uint8_t type = userData.data[at], size = userData.data[at + 1];
        at += 2;
        if (size > userData.size - at) break;
        if (type == kCommentType) return Attribute{0, userData.data + at, size}.text();
        at += size;
    }
    return "";
}

bool isFor(const nlmsghdr& header, uint16_t type, uint8_t family) {
    const auto* fixed = fixedPart<nfgenmsg>(header);
    return header.nlmsg_type == nftType(type) && fixed != nullptr &&
           (family == NFPROTO_UNSPEC || fixed->nfgen_family == family);
}

std::vector<uint8_t> keyOf(const Attribute& nested) {
    std::optional<Attribute> value = Attributes(nested).find(NFTA_DATA_VALUE);
    if (!value) return {};
    return std::vector<uint8_t>(value->data, value->data + value->size);
}

NftElement parseElement(const Attribute& nested) {
    NftElement element;
    Digest digest;
    for (Attribute attribute : Attributes(nested)) {
        switch (attribute.type) {
        case NFTA_SET_ELEM_KEY:
            element.key = keyOf(attribute);
            break;
        case NFTA_SET_ELEM_FLAGS:
            element.flags = attribute.be32();
            break;
        case NFTA_SET_ELEM_USERDATA:
            element.comment = commentIn(attribute);
            continue;
        case NFTA_SET_ELEM_EXPR:
        case NFTA_SET_ELEM_EXPRESSIONS:
        case NFTA_SET_ELEM_EXPIRATION:
            continue;
        default:
            break;
        }
        digest.add(&attribute.type, sizeof(attribute.type));
        digest.add(std::string(reinterpret_cast<const char*>(attribute.data), attribute.size));
    }
    element.digest = digest.value();
    return element;
}

[[noreturn]] void noNftables() {
    fail(EOPNOTSUPP, "netlink", "read nf_tables", "this kernel has no nf_tables");
}

/** A rule as dumped; its expressions are digested later, when no dump is running on the socket. */
struct RawRule {
    NftRule rule;
    std::vector<uint8_t> expressions;
};

} // namespace

std::optional<uint8_t> nftFamily(const std::string& name) {
    for (const auto& [text, number] : kFamilies) {
        if (name == text) return number;
    }
    return std::nullopt;
}

std::string nftFamilyName(uint8_t family) {
    for (const auto& [text, number] : kFamilies) {
        if (family == number) return text;
    }
    return std::to_string(family);
}

NftReader::NftReader(int netns) try : socket_(netns, NETLINK_NETFILTER) {
} catch (const Fault& fault) {
    if (fault.error != EPROTONOSUPPORT) throw;
    noNftables();
}

uint32_t NftReader::generation() {
    Message message = nftRequest(NFT_MSG_GETGEN, NLM_F_ACK, NFPROTO_UNSPEC);
    uint32_t generation = 0;
    try {
        socket_.request(message, "read nf_tables", [&](const nlmsghdr& header) {
            if (!isFor(header, NFT_MSG_NEWGEN, NFPROTO_UNSPEC)) return;
            std::optional<Attribute> id = Attributes::after<nfgenmsg>(header).find(NFTA_GEN_ID);
            if (id) generation = id->be32();
        });
    } catch (const Fault& fault) {
        // nfnetlink answers EINVAL for a subsystem that it could not load.
        if (fault.error != EINVAL) throw;
        noNftables();
    }
    return generation;
}

std::vector<std::string> NftReader::tables() {
    Message message = nftRequest(NFT_MSG_GETTABLE, NLM_F_DUMP, NFPROTO_UNSPEC);
    return socket_.dump<std::string>(
        message, "list nf_tables tables",
        [](const nlmsghdr& header, std::vector<std::string>& result) {
            if (!isFor(header, NFT_MSG_NEWTABLE, NFPROTO_UNSPEC)) return;
            std::optional<Attribute> name =
                Attributes::after<nfgenmsg>(header).find(NFTA_TABLE_NAME);
            if (!name) return;
            result.push_back(nftFamilyName(fixedPart<nfgenmsg>(header)->nfgen_family) + " " +
                             name->text());
        });
}

std::optional<NftTable> NftReader::table(uint8_t family, const std::string& name) {
    Message message = nftRequest(NFT_MSG_GETTABLE, NLM_F_ACK, family);
    message.putString(NFTA_TABLE_NAME, name);
    std::optional<NftTable> table;
    try {
        socket_.request(message, "read nf_tables table " + name, [&](const nlmsghdr& header) {
            if (!isFor(header, NFT_MSG_NEWTABLE, family)) return;
            table.emplace();
            for (Attribute attribute : Attributes::after<nfgenmsg>(header)) {
                if (attribute.type == NFTA_TABLE_HANDLE) table->handle = attribute.be64();
                if (attribute.type == NFTA_TABLE_USERDATA) table->comment = commentIn(attribute);
                if (attribute.type == NFTA_TABLE_FLAGS)
                    table->dormant = (attribute.be32() & NFT_TABLE_F_DORMANT) != 0;
            }
        });
    } catch (const Fault& fault) {
        if (fault.error != ENOENT) throw;
    }
    return table;
}

std::vector<NftChain> NftReader::chains(uint8_t family) {
    Message message = nftRequest(NFT_MSG_GETCHAIN, NLM_F_DUMP, family);
    return socket_.dump<NftChain>(
        message, "list nf_tables chains",
        [&](const nlmsghdr& header, std::vector<NftChain>& result) {
            if (!isFor(header, NFT_MSG_NEWCHAIN, family)) return;
            NftChain chain;
            chain.family = fixedPart<nfgenmsg>(header)->nfgen_family;
            for (Attribute attribute : Attributes::after<nfgenmsg>(header)) {
                if (attribute.type == NFTA_CHAIN_TABLE) chain.table = attribute.text();
                if (attribute.type == NFTA_CHAIN_NAME) chain.name = attribute.text();
                if (attribute.type == NFTA_CHAIN_TYPE) chain.type = attribute.text();
                if (attribute.type == NFTA_CHAIN_POLICY)
                    chain.policy = attribute.be32() == NF_DROP ? "drop" : "accept";
                if (attribute.type != NFTA_CHAIN_HOOK) continue;
                for (Attribute hook : Attributes(attribute)) {
                    const int value = static_cast<int>(hook.be32());
                    if (hook.type == NFTA_HOOK_HOOKNUM) chain.hook = value;
                    if (hook.type == NFTA_HOOK_PRIORITY) chain.priority = value;
                }
            }
            result.push_back(chain);
        });
}

std::vector<NftChain> NftReader::chains(uint8_t family, const std::string& table) {
    // This dump has no filter by table in the kernel.
    std::vector<NftChain> all = chains(family);
    all.erase(std::remove_if(all.begin(), all.end(),
                             [&](const NftChain& chain) { return chain.table != table; }),
              all.end());
    return all;
}

std::vector<NftSet> NftReader::sets(uint8_t family, const std::string& table) {
    Message message = nftRequest(NFT_MSG_GETSET, NLM_F_DUMP, family);
    message.putString(NFTA_SET_TABLE, table);
    return socket_.dump<NftSet>(message, "list nf_tables sets of " + table,
                                [&](const nlmsghdr& header, std::vector<NftSet>& result) {
                                    if (!isFor(header, NFT_MSG_NEWSET, family)) return;
                                    NftSet set;
                                    for (Attribute attribute :
                                         Attributes::after<nfgenmsg>(header)) {
                                        if (attribute.type == NFTA_SET_NAME)
                                            set.name = attribute.text();
                                        if (attribute.type == NFTA_SET_KEY_TYPE)
                                            set.keyType = attribute.be32();
                                        if (attribute.type == NFTA_SET_KEY_LEN)
                                            set.keySize = attribute.be32();
                                        if (attribute.type == NFTA_SET_FLAGS)
                                            set.flags = attribute.be32();
                                    }
                                    result.push_back(set);
                                });
}

std::vector<NftElement> NftReader::elements(uint8_t family, const std::string& table,
                                            const std::string& set) {
    Message message = nftRequest(NFT_MSG_GETSETELEM, NLM_F_DUMP, family);
    message.putString(NFTA_SET_ELEM_LIST_TABLE, table).putString(NFTA_SET_ELEM_LIST_SET, set);
    return socket_.dump<NftElement>(message, "list nf_tables set " + table + " " + set,
                                    [&](const nlmsghdr& header, std::vector<NftElement>& result) {
                                        if (!isFor(header, NFT_MSG_NEWSETELEM, family)) return;
                                        for (Attribute attribute :
                                             Attributes::after<nfgenmsg>(header)) {
                                            if (attribute.type != NFTA_SET_ELEM_LIST_ELEMENTS)
                                                continue;
                                            for (Attribute element : Attributes(attribute)) {
                                                result.push_back(parseElement(element));
                                            }
                                        }
                                    });
}

std::vector<NftRule> NftReader::rules(uint8_t family, const std::string& table) {
    Message message = nftRequest(NFT_MSG_GETRULE, NLM_F_DUMP, family);
    message.putString(NFTA_RULE_TABLE, table);
    std::vector<RawRule> raw = socket_.dump<RawRule>(
        message, "list nf_tables rules of " + table,
        [&](const nlmsghdr& header, std::vector<RawRule>& result) {
            if (!isFor(header, NFT_MSG_NEWRULE, family)) return;
            RawRule found;
            for (Attribute attribute : Attributes::after<nfgenmsg>(header)) {
                if (attribute.type == NFTA_RULE_CHAIN) found.rule.chain = attribute.text();
                if (attribute.type == NFTA_RULE_HANDLE) found.rule.handle = attribute.be64();
                if (attribute.type == NFTA_RULE_USERDATA) found.rule.comment = commentIn(attribute);
                if (attribute.type == NFTA_RULE_EXPRESSIONS) {
                    found.expressions.assign(attribute.data, attribute.data + attribute.size);
                }
            }
            result.push_back(std::move(found));
        });
    const AnonymousSet anonymous = [&](const std::string& set) {
        std::vector<NftElement> content = elements(family, table, set);
        // A hash set is dumped in an order of its own in every netns.
        std::sort(content.begin(), content.end(),
                  [](const NftElement& a, const NftElement& b) { return a.digest < b.digest; });
        Digest digest;
        for (const NftElement& element : content) {
            digest.add(&element.digest, sizeof(element.digest));
        }
        return digest.value();
    };
    std::vector<NftRule> result;
    for (RawRule& found : raw) {
        Digest digest;
        NftCounter counter;
        digest.add(found.rule.chain);
        digestExpressions(digest, {0, found.expressions.data(), found.expressions.size()}, counter,
                          anonymous);
        found.rule.digest = digest.value();
        found.rule.jump = jumpOf({0, found.expressions.data(), found.expressions.size()});
        if (found.rule.comment.empty()) {
            found.rule.comment =
                xtablesComment({0, found.expressions.data(), found.expressions.size()});
        }
        found.rule.packets = counter.packets;
        found.rule.bytes = counter.bytes;
        result.push_back(std::move(found.rule));
    }
    return result;
}

} // namespace ambient
