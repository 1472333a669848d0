// SPDX-License-Identifier: Apache-2.0
#include "nft_expressions.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>

#include <cstring>

namespace ambient {

namespace {

/** Calls `visit(data)` for each expression of a kind. */
template <class Visit>
void forEach(const Attribute& expressions, const char* kind, const Visit& visit) {
    for (Attribute element : Attributes(expressions)) {
        if (element.type != NFTA_LIST_ELEM) continue;
        Attributes expression(element);
        std::optional<Attribute> name = expression.find(NFTA_EXPR_NAME);
        std::optional<Attribute> data = expression.find(NFTA_EXPR_DATA);
        if (name && data && name->text() == kind) visit(Attributes(*data));
    }
}

} // namespace

std::string jumpOf(const Attribute& expressions) {
    std::string chain;
    forEach(expressions, "immediate", [&](const Attributes& immediate) {
        std::optional<Attribute> data = immediate.find(NFTA_IMMEDIATE_DATA);
        if (!data) return;
        std::optional<Attribute> verdict = Attributes(*data).find(NFTA_DATA_VERDICT);
        if (!verdict) return;
        std::optional<Attribute> name = Attributes(*verdict).find(NFTA_VERDICT_CHAIN);
        if (name) chain = name->text();
    });
    return chain;
}

std::string xtablesComment(const Attribute& expressions) {
    std::string comment;
    forEach(expressions, "match", [&](const Attributes& match) {
        std::optional<Attribute> name = match.find(NFTA_MATCH_NAME);
        std::optional<Attribute> info = match.find(NFTA_MATCH_INFO);
        if (!name || !info || name->text() != "comment") return;
        const auto* text = reinterpret_cast<const char*>(info->data);
        comment.assign(text, ::strnlen(text, info->size));
    });
    return comment;
}

} // namespace ambient
