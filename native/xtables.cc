// SPDX-License-Identifier: Apache-2.0
#include "xtables.h"

#include "args.h"
#include "digest.h"
#include "xtables_reader.h"

namespace ambient {

namespace {

Napi::Object tableObject(Napi::Env env, const XtTable& table) {
    Napi::Array chains = Napi::Array::New(env, table.chains.size());
    for (size_t i = 0; i < table.chains.size(); i++) {
        Napi::Object chain = Napi::Object::New(env);
        chain.Set("name", table.chains[i].name);
        chain.Set("policy", table.chains[i].policy);
        chains.Set(static_cast<uint32_t>(i), chain);
    }
    Napi::Array rules = Napi::Array::New(env, table.rules.size());
    for (size_t i = 0; i < table.rules.size(); i++) {
        Napi::HandleScope scope(env);
        const XtRule& rule = table.rules[i];
        Napi::Object object = Napi::Object::New(env);
        object.Set("chain", rule.chain);
        object.Set("comment", rule.comment);
        object.Set("jump", rule.jump);
        object.Set("digest", digestText(rule.digest));
        object.Set("packets", bigint(env, rule.packets));
        rules.Set(static_cast<uint32_t>(i), object);
    }
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", table.name);
    object.Set("chains", chains);
    object.Set("rules", rules);
    return object;
}

} // namespace

Napi::Value xtables(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::vector<XtTable> tables = readXtables(args.netns(0), args.family(1));
    Napi::Array array = Napi::Array::New(info.Env(), tables.size());
    for (size_t i = 0; i < tables.size(); i++) {
        array.Set(static_cast<uint32_t>(i), tableObject(info.Env(), tables[i]));
    }
    return array;
}

} // namespace ambient
