// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "netlink.h"

namespace ambient {

struct NftTable {
    /** Another one for each table that is made, also of the same name. */
    uint64_t handle = 0;
    std::string comment;
    bool dormant = false;
};

struct NftChain {
    /** `policy`: "accept" or "drop", "" for a regular chain. */
    std::string table, name, type, policy;
    uint8_t family = 0;
    int hook = -1;
    int priority = 0;
};

struct NftRule {
    /** `jump`: the chain it jumps or goes to, "" for another verdict or none. */
    std::string chain, comment, jump;
    uint64_t handle = 0, digest = 0, packets = 0, bytes = 0;
};

struct NftSet {
    std::string name;
    uint32_t keyType = 0, keySize = 0, flags = 0;
};

struct NftElement {
    std::vector<uint8_t> key;
    std::string comment;
    uint32_t flags = 0;
    /** Of the whole element as the kernel sent it, counters left out. */
    uint64_t digest = 0;
};

/** nfnetlink's number of "inet", "ip", "ip6", ...; nullopt for another word. */
std::optional<uint8_t> nftFamily(const std::string& name);
std::string nftFamilyName(uint8_t family);

/** Reads nf_tables of one netns by NFNETLINK dumps. */
class NftReader {
  public:
    /** @throws Fault EOPNOTSUPP on a kernel without netfilter's netlink. */
    explicit NftReader(int netns);

    /** Number of the last transaction. @throws Fault EOPNOTSUPP on a kernel without nf_tables. */
    uint32_t generation();
    /** "family name" of every table. */
    std::vector<std::string> tables();
    /** The table itself, or nullopt when it does not exist. */
    std::optional<NftTable> table(uint8_t family, const std::string& name);
    std::vector<NftChain> chains(uint8_t family, const std::string& table);
    /** Of every table of a family, or of all families (NFPROTO_UNSPEC). */
    std::vector<NftChain> chains(uint8_t family);
    std::vector<NftSet> sets(uint8_t family, const std::string& table);
    std::vector<NftElement> elements(uint8_t family, const std::string& table,
                                     const std::string& set);
    std::vector<NftRule> rules(uint8_t family, const std::string& table);

  private:
    NetlinkSocket socket_;
};

} // namespace ambient
