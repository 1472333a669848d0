/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef AMBIENT_VERDICT_H
#define AMBIENT_VERDICT_H

#include "maps.h"

struct flow {
	struct ambient_address source;
	struct ambient_address destination;
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
};

static __always_inline struct ambient_state *node_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}

/* Counts the first packet of a flow and, when somebody reads, tells about it. */
static __always_inline void decided(__u64 cookie, enum ambient_verdict verdict, const struct flow *flow)
{
	struct ambient_counters *count = bpf_map_lookup_elem(&counters, &cookie);
	struct ambient_state *node = node_state();
	struct ambient_event *event;

	if (count)
		count->verdict[verdict]++;
	if (!node || !node->events)
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&node->events_lost, 1);
		return;
	}
	event->nanoseconds = bpf_ktime_get_ns();
	event->cookie = cookie;
	event->source = flow->source;
	event->destination = flow->destination;
	event->source_port = flow->source_port;
	event->destination_port = flow->destination_port;
	event->protocol = flow->protocol;
	event->verdict = verdict;
	event->zero = 0;
	bpf_ringbuf_submit(event, 0);
}

#endif
