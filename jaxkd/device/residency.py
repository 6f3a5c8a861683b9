"""Where each block's weights are between two uses, under a budget of memory.

resident: inside a session of their own, in the form that onnxruntime multiplies fastest; anonymous
    memory.
mapped: the file stays mapped; the system can take its pages back.
streamed: the file is mapped while the block runs, and let go of.
"""

from jaxkd.device.errors import NoMemory

RESIDENT, MAPPED, STREAMED = "resident", "mapped", "streamed"
# Bytes of a resident block per byte of its file; float16 is made float32 once and for all.
COST, FLOAT16_COST = 1.2, 2.2
BUILDING = 4.0  # the same while its session is made: file, message, arrays and packed matrices
# Bytes of weights in one session: protobuf's limit of a message, and room for the graph.
MESSAGE = 2**31 - 2**26
TIME = {RESIDENT: 1.0, MAPPED: 1.25, STREAMED: 2.0}  # about, of a block


def plan(sizes, budget, working, cost=COST):
    """The tier of each block: the fastest that fits, the first blocks in the faster tiers.

    Args:
      sizes: bytes of each block's weights, in the order in which they run.
      budget: bytes for the whole; None: no limit.
      working: bytes of everything but these weights.
      cost: of a resident block.
    Raises:
      NoMemory: if not even one layer at a time fits.

    >>> plan([100, 100, 100], None, 0)
    ['resident', 'resident', 'resident']
    >>> plan([100, 100, 100], 570, 50)
    ['resident', 'resident', 'mapped']
    >>> plan([100, 100, 100], 360, 50)
    ['mapped', 'mapped', 'mapped']
    >>> plan([100, 100, 100], 260, 50)
    ['mapped', 'streamed', 'streamed']
    >>> plan([100, 100, 100], 160, 50)
    ['streamed', 'streamed', 'streamed']
    """
    count = len(sizes)
    if budget is None:
        return [RESIDENT] * count
    window = max(sizes) if sizes else 0
    if working + window > budget:
        raise NoMemory(
            f"a budget of {budget / 1e6:.1f} MB has no room: one layer takes {window / 1e6:.1f} MB "
            f"and everything else about {working / 1e6:.1f} MB. Needed are "
            f"{(working + window) / 1e6:.1f} MB; int8 weights need less."
        )
    best = None
    for resident in range(count + 1):
        used = working + cost * sum(sizes[:resident])
        if resident and used + (BUILDING - COST) * cost / COST * sizes[resident - 1] > budget:
            break
        for mapped in range(count - resident + 1):
            streamed = count - resident - mapped
            total = used + sum(sizes[resident : resident + mapped]) + (window if streamed else 0)
            if total > budget:
                continue
            tiers = [RESIDENT] * resident + [MAPPED] * mapped + [STREAMED] * streamed
            time = sum(TIME[tier] for tier in tiers)
            if best is None or time < best[0]:
                best = (time, tiers)
    return best[1]


def used_bytes(sizes, tiers, working, cost=COST):
    """What a plan takes when everything is where it belongs.

    >>> used_bytes([100, 100, 100], ["resident", "mapped", "streamed"], 50)
    370.0
    """
    counted = working + max((s for s, tier in zip(sizes, tiers) if tier == STREAMED), default=0)
    for size, tier in zip(sizes, tiers):
        counted += {RESIDENT: cost, MAPPED: 1.0}.get(tier, 0.0) * size
    return counted


def groups(blocks, sizes, tiers, cuts=(), room=None, cost=COST):
    """Ranges of blocks that one session runs: resident ones, as many as can be.

    One session instead of one a block saves about a tenth of the time of 12 blocks.

    Args:
      blocks: anything that tells blocks apart. One that comes again stays alone: one session
        would hold its packed matrices twice.
      cuts: blocks after which hidden states are read.
      room: bytes that are free beside the whole plan, for what building takes besides; None: no
        limit.

    >>> groups("abcd", [100] * 4, ["resident"] * 3 + ["mapped"], {0})
    [range(0, 1), range(1, 3), range(3, 4)]
    >>> groups("aaa", [100] * 3, ["resident"] * 3)
    [range(0, 1), range(1, 2), range(2, 3)]
    >>> groups("abcd", [100] * 4, ["resident"] * 4, room=560)
    [range(0, 2), range(2, 4)]
    >>> groups("abaa", [100] * 4, ["resident"] * 4)
    [range(0, 1), range(1, 2), range(2, 3), range(3, 4)]
    >>> groups("abcd", [10**9] * 4, ["resident"] * 4)
    [range(0, 2), range(2, 4)]
    """
    made, building = [], (BUILDING - COST) * cost / COST
    single = {block for block in blocks if list(blocks).count(block) == 1}
    for i, block in enumerate(blocks):
        last = made[-1] if made else None
        total = sum(sizes[last[0] : i + 1]) if last else 0
        if (
            last
            and tiers[i] == tiers[last[0]] == RESIDENT
            and last[-1] not in cuts
            and {block, blocks[last[0]]} <= single
            and total <= MESSAGE
            and (room is None or building * total <= room)
        ):
            made[-1] = range(last[0], i + 1)
        else:
            made.append(range(i, i + 1))
    return made


def working_bytes(width, inner, heads, rows, length, cast=0):
    """About what a block's activations take, and onnxruntime besides; measured in tests.

    Args:
      inner: width of the feed-forward.
      cast: bytes of the largest matrix that is made float32 to be multiplied.
    """
    tokens = rows * length
    floats = tokens * (8 * width + 3 * inner) + 3 * rows * heads * length * length
    return 10 * 2**20 + 4 * floats + cast
