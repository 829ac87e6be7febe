//go:build ignore

// Marks what is written to tracked disks in bitmaps of the kernel. Built by `make bpf` into tracker.bpf.o, which is committed.
//
// Only the fields that are used are declared, and the loader finds them in the running kernel's type information. Nothing here is
// an event stream: a bitmap cannot overflow.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define inlined static __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define field_exists(field) __builtin_preserve_field_info(field, 2)

// From uapi/linux/bpf.h.
enum { MAP_ARRAY = 2, MAP_ARRAY_OF_MAPS = 12 };
enum { F_MMAPABLE = 1 << 10, F_INNER_MAP = 1 << 12 };
static void *(*lookup)(void *map, const void *key) = (void *)1;
static u32 (*this_cpu)(void) = (void *)8;

// Numbers of request operations, the same since Linux 4.10. An odd one changes data; those not named here cannot be placed.
enum { OP_MASK = 0xff, OP_WRITE = 1, OP_DISCARD = 3, OP_SECURE_ERASE = 5, OP_WRITE_ZEROES = 9 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct gendisk {
	int major, first_minor;
};
struct request_queue {
	struct gendisk *disk; // since 5.15
	int mq_freeze_depth;
};
struct bvec_iter {
	u64 bi_sector;
	u32 bi_size;
};
struct block_device {
	struct gendisk *bd_disk;
};
struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev; // since 5.12
	u32 bi_opf;
	struct bvec_iter bi_iter;
};
struct bio___before_5_12 {
	struct gendisk *bi_disk;
};
enum mq_rq_state { MQ_RQ_IDLE = 0, MQ_RQ_IN_FLIGHT = 1, MQ_RQ_COMPLETE = 2 };
struct request {
	struct request_queue *q;
	u32 cmd_flags;
	u32 __data_len;
	u64 __sector;
	struct bio *bio;
	enum mq_rq_state state;
};
struct request___before_5_17 {
	struct gendisk *rq_disk;
};
#pragma clang attribute pop

// A tracked disk. The layout is that of diskState in state.go; programs read it, the agent writes it.
struct disk {
	u32 active;   // the side that marks go to, 0 or 1
	u32 bios;     // 1: the disk has no request queue, bios are marked
	u32 shift[2]; // of a side: log2 of the sectors a bit stands for
	u32 words[2]; // of a side: words of single bits; behind them one bit stands for a whole word
	u8 agents[232];
};

// What programs counted of a disk on one CPU. The layout is that of tally in state.go.
struct tally {
	u64 issued, requeued, completed; // bytes
	u64 unknown;                     // operations that may have changed data nobody knows where
	u64 outside;                     // marks beyond the bitmap
	u64 freezing;                    // completions while the queue was being drained
	// Programs that began and ended. Who changes disk.active then waits until they are equal on every CPU.
	u64 entered, left;
};

// Where a disk's device number is found: one of the four places of its bucket has number << 32 | slot. As fast as an array, where a
// hash map takes a fifth of all the time.
struct bucket {
	u64 places[4];
};
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 256);
	__uint(map_flags, F_MMAPABLE);
	__type(key, u32);
	__type(value, struct bucket);
} numbers SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 64);
	__uint(map_flags, F_MMAPABLE);
	__type(key, u32);
	__type(value, struct disk);
} disks SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 64);
	__uint(map_flags, F_MMAPABLE);
	__type(key, u32);
	__type(value, struct tally);
} tallies SEC(".maps"); // slot * CPUs + CPU

struct side {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, F_MMAPABLE | F_INNER_MAP);
	__type(key, u32);
	__type(value, u64);
};
struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 256);
	__type(key, u32);
	__type(value, u32);
	struct side *values[];
} sides SEC(".maps"); // slot * 4 + side; side 2 is the agent's, of what is sealed and not released

volatile const u32 cpus = 1; // possible ones, set by the loader

// The value is used, so that the compiler takes the instruction that is a full barrier.
inlined void ordered_add(u64 *p)
{
	u64 old = __sync_fetch_and_add(p, 1);
	asm volatile("" ::"r"(old) : "memory");
}

// mark_words sets bits first to last of an array of words that begins at word base; at most 258 words.
inlined int mark_words(void *side, u64 base, u64 first, u64 last)
{
	for (int i = 0; i < 260; i++) {
		if (first > last)
			return 0;
		u32 w = base + (first >> 6);
		u64 *p = lookup(side, &w);
		if (!p)
			return 1;
		u64 hi = (last >> 6) == (first >> 6) ? last & 63 : 63;
		u64 mask = (~0ULL << (first & 63)) & (~0ULL >> (63 - hi));
		if ((*p & mask) != mask)
			__sync_fetch_and_or(p, mask);
		first = ((first >> 6) + 1) << 6;
	}
	return 1;
}

struct tracked {
	struct disk *disk;
	struct tally *tally;
	u32 slot;
};

// mark sets the bits of a range. Whole words in its middle take one bit each, so that an operation on 4 GiB is a short loop, too.
inlined void mark(struct tracked *t, u64 sector, u32 bytes)
{
	struct disk *d = t->disk;
	u64 sectors = bytes >> 9;
	if (!sectors)
		return;
	u32 active = *(volatile u32 *)&d->active & 1;
	u32 key = t->slot * 4 + active;
	void *side = lookup(&sides, &key);
	if (!side) {
		__sync_fetch_and_add(&t->tally->outside, 1);
		return;
	}
	u32 shift = (active ? d->shift[1] : d->shift[0]) & 63;
	u64 words = active ? d->words[1] : d->words[0];
	u64 first = sector >> shift, last = (sector + sectors - 1) >> shift;
	if ((last >> 6) >= words) { // the disk has grown and the agent has not seen it yet, or it is no address at all
		__sync_fetch_and_add(&t->tally->outside, 1);
		if ((first >> 6) >= words)
			return;
		last = (words << 6) - 1;
	}
	u64 head = first >> 6, tail = last >> 6;
	int bad;
	if (tail - head < 2) {
		bad = mark_words(side, 0, first, last);
	} else {
		bad = mark_words(side, 0, first, first | 63);
		bad |= mark_words(side, words, head + 1, tail - 1);
		bad |= mark_words(side, 0, last & ~63ULL, last);
	}
	if (bad)
		__sync_fetch_and_add(&t->tally->outside, 1);
}

inlined int at_slot(u32 slot, struct tracked *t)
{
	t->slot = slot;
	t->disk = lookup(&disks, &t->slot);
	u32 at = slot * cpus + this_cpu();
	t->tally = lookup(&tallies, &at);
	return t->disk && t->tally;
}

// mark_one does so for one of many ranges. It is global, so that the kernel verifies it once and not for every turn of a loop.
__attribute__((noinline)) int mark_one(u32 slot, u64 sector, u32 bytes)
{
	struct tracked t;
	if (at_slot(slot, &t))
		mark(&t, sector, bytes);
	return 0;
}

inlined int find(struct gendisk *g, struct tracked *out)
{
	if (!g)
		return 0;
	u32 dev = (u32)g->major << 20 | (u32)g->first_minor;
	u32 key = dev * 0x9e3779b1 >> 24;
	struct bucket *b = lookup(&numbers, &key);
	if (!b)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		u64 place = b->places[i];
		if (place >> 32 == dev)
			return at_slot(place, out);
	}
	return 0;
}

inlined struct gendisk *disk_of(struct request *rq, struct request_queue *q)
{
	struct request___before_5_17 *old = (void *)rq;
	if (field_exists(old->rq_disk))
		return old->rq_disk;
	return q ? q->disk : 0;
}

// A discard may be of many ranges apart from each other, one in each bio.
inlined void mark_request(struct tracked *t, struct request *rq, u32 op, u32 bytes)
{
	if (op != OP_DISCARD) {
		mark(t, rq->__sector, bytes);
		return;
	}
	struct bio *b = rq->bio;
	for (int i = 0; i < 256 && b; i++) {
		mark_one(t->slot, b->bi_iter.bi_sector, b->bi_iter.bi_size);
		b = b->bi_next;
	}
	if (b)
		__sync_fetch_and_add(&t->tally->unknown, 1);
}

inlined int known(u32 op)
{
	return op == OP_WRITE || op == OP_DISCARD || op == OP_SECURE_ERASE || op == OP_WRITE_ZEROES;
}

inlined int on_issue(struct request *rq)
{
	u32 op = rq->cmd_flags & OP_MASK, bytes = rq->__data_len;
	struct tracked t;
	if (!(op & 1) || !find(disk_of(rq, rq->q), &t))
		return 0;
	ordered_add(&t.tally->entered); // before disk.active is read
	if (known(op)) {
		__sync_fetch_and_add(&t.tally->issued, bytes);
		mark_request(&t, rq, op, bytes);
	} else {
		__sync_fetch_and_add(&t.tally->unknown, 1);
	}
	ordered_add(&t.tally->left);
	return 0;
}

// block_rq_issue(request) since 5.11, block_rq_issue(queue, request) before.
SEC("tp_btf/block_rq_issue") int issue(u64 *ctx) { return on_issue((void *)ctx[0]); }
SEC("tp_btf/block_rq_issue") int issue_before_5_11(u64 *ctx) { return on_issue((void *)ctx[1]); }

// block_rq_complete(request, error, bytes)
SEC("tp_btf/block_rq_complete") int complete(u64 *ctx)
{
	struct request *rq = (void *)ctx[0];
	u32 op = rq->cmd_flags & OP_MASK, bytes = ctx[2];
	struct request_queue *q = rq->q;
	int freezing = q->mq_freeze_depth;
	struct tracked t;
	if (!(op & 1) && !freezing || !find(disk_of(rq, q), &t))
		return 0;
	if (freezing)
		__sync_fetch_and_add(&t.tally->freezing, 1);
	if (!known(op))
		return 0;
	ordered_add(&t.tally->entered); // before disk.active is read
	__sync_fetch_and_add(&t.tally->completed, bytes);
	mark_request(&t, rq, op, bytes);
	ordered_add(&t.tally->left);
	return 0;
}

// A request that was issued and comes back will be issued, and counted, once more.
inlined int on_requeue(struct request *rq)
{
	u32 op = rq->cmd_flags & OP_MASK;
	struct tracked t;
	if (known(op) && rq->state == MQ_RQ_IN_FLIGHT && find(disk_of(rq, rq->q), &t))
		__sync_fetch_and_add(&t.tally->requeued, rq->__data_len);
	return 0;
}
SEC("tp_btf/block_rq_requeue") int requeue(u64 *ctx) { return on_requeue((void *)ctx[0]); }
SEC("tp_btf/block_rq_requeue") int requeue_before_5_11(u64 *ctx) { return on_requeue((void *)ctx[1]); }

// Disks without a request queue are seen here only, and only they are marked here.
inlined int on_bio(struct bio *b)
{
	u32 op = b->bi_opf & OP_MASK, bytes = b->bi_iter.bi_size;
	struct bio___before_5_12 *old = (void *)b;
	struct tracked t;
	if (!(op & 1))
		return 0;
	struct gendisk *g = field_exists(old->bi_disk) ? old->bi_disk : b->bi_bdev->bd_disk;
	if (!find(g, &t) || !t.disk->bios)
		return 0;
	ordered_add(&t.tally->entered);
	if (known(op)) {
		__sync_fetch_and_add(&t.tally->issued, bytes);
		mark(&t, b->bi_iter.bi_sector, bytes);
	} else {
		__sync_fetch_and_add(&t.tally->unknown, 1);
	}
	ordered_add(&t.tally->left);
	return 0;
}
SEC("tp_btf/block_bio_queue") int queue(u64 *ctx) { return on_bio((void *)ctx[0]); }
SEC("tp_btf/block_bio_queue") int queue_before_5_11(u64 *ctx) { return on_bio((void *)ctx[1]); }

char _license[] SEC("license") = "GPL";
