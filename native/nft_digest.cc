// SPDX-License-Identifier: Apache-2.0
#include "nft_digest.h"

#include <linux/netfilter/nf_tables.h>

namespace ambient {

namespace {

/** Attributes whose value traffic or time changes. */
bool volatileAttribute(const std::string& expression, uint16_t type) {
    if (expression == "counter" || expression == "last") return true;
    return expression == "quota" && type == NFTA_QUOTA_CONSUMED;
}

void digestOne(Digest& digest, const Attribute& element, NftCounter& counter,
               const AnonymousSet& anonymous) {
    Attributes expression(element);
    std::optional<Attribute> name = expression.find(NFTA_EXPR_NAME);
    const std::string kind = name ? name->text() : "";
    digest.add(kind);
    std::optional<Attribute> data = expression.find(NFTA_EXPR_DATA);
    if (!data) return;
    for (Attribute attribute : Attributes(*data)) {
        if (kind == "counter" && attribute.type == NFTA_COUNTER_PACKETS) {
            counter.packets += attribute.be64();
        }
        if (kind == "counter" && attribute.type == NFTA_COUNTER_BYTES) {
            counter.bytes += attribute.be64();
        }
        if (volatileAttribute(kind, attribute.type)) continue;
        digest.add(&attribute.type, sizeof(attribute.type));
        if (kind == "lookup" && attribute.type == NFTA_LOOKUP_SET) {
            const std::string set = attribute.text();
            // "__set%d" and "__map%d": names that only the kernel gives.
            if (set.rfind("__", 0) == 0) {
                const uint64_t content = anonymous(set);
                digest.add(&content, sizeof(content));
                continue;
            }
        }
        digest.add(std::string(reinterpret_cast<const char*>(attribute.data), attribute.size));
    }
}

} // namespace

void digestExpressions(Digest& digest, const Attribute& list, NftCounter& counter,
                       const AnonymousSet& anonymous) {
    for (Attribute element : Attributes(list)) {
        if (element.type == NFTA_LIST_ELEM) digestOne(digest, element, counter, anonymous);
    }
}

} // namespace ambient
