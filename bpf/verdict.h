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

static __always_inline __u64 *monitor_place(__u32 place)
{
	return bpf_map_lookup_elem(&monitor, &place);
}

/* An array's place is a known address: while nobody reads, one load and one jump. */
static __always_inline bool is_monitored(void)
{
	__u64 *until = monitor_place(AMBIENT_MONITOR_UNTIL);

	return until && *until;
}

/* Called where is_monitored(). A function of its own, so that the programs are not longer for it. */
static __noinline int tell(__u64 cookie, __u32 verdict, const struct flow *flow)
{
	__u64 *until = monitor_place(AMBIENT_MONITOR_UNTIL);
	__u64 now = bpf_ktime_get_ns();
	struct ambient_event *event;
	__u64 *lost;

	/* The reader is gone without a word, or stuck. */
	if (!until || now >= *until)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lost = monitor_place(AMBIENT_MONITOR_LOST);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return 0;
	}
	event->nanoseconds = now;
	event->cookie = cookie;
	event->source = flow->source;
	event->destination = flow->destination;
	event->source_port = flow->source_port;
	event->destination_port = flow->destination_port;
	event->protocol = flow->protocol;
	event->verdict = verdict;
	event->zero = 0;
	/* The reader comes by itself, some times a second: waking it would cost the connection. */
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Counts the first packet of a flow. */
static __always_inline void count(__u64 cookie, enum ambient_verdict verdict)
{
	struct ambient_counters *counted = bpf_map_lookup_elem(&counters, &cookie);

	if (counted)
		counted->verdict[verdict]++;
}

#endif
