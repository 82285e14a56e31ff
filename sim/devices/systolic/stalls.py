"""Memory stalls of SCALE-Sim 3 in its ``USER`` bandwidth mode, event by event.

The reference walks every cycle and every address. Its state changes only where a demand misses the window that a read
buffer holds, or where the write buffer starts or waits for a drain, so this module jumps from one such line to the
next and gives the same cycles. Source of the mechanism: SCALE-Sim 3.0.0, ``memory/read_buffer.py``,
``memory/write_buffer.py``, ``memory/double_buffered_scratchpad_mem.py`` and ``compute/systolic_compute_*.py``.

Read buffer: an operand is prefetched in the order of its *prefetch matrix*, cut into sets of ``⌈capacity/100⌉`` words.
Half of the capacity is the active window. A demand outside it moves the window on by the other half, which was asked
for when the window moved last and takes ``⌈half/bandwidth⌉ + 1`` cycles. What is missing then counts twice (the
reference adds the wait to the line's offset twice), and a half that came early moves the offset back within the line.
"""

from __future__ import annotations

from ...accelerate import Accelerated

NEVER = 1 << 60
"""Line number of an event that does not come."""

# Fields of an operand: geometry, then the moving window.
DIAGONAL, OFFSET, LENGTH, WIDTH, FOLDS, LAST, DEPTH, ROWS, SET, SETS, ACTIVE, STEP, WAIT, START, END, READY = range(16)
# Patches of a convolution: kernel width (0: every word has one place), stride, output height and width, channels, and
# whether the lanes of a streamed operand are positions (1) or elements of a patch (0).
KERNEL, STRIDE, HIGH, WIDE, CHANNELS, LANES = range(16, 22)
OPERAND_FIELDS = 22
# Fields of the write buffer.
TOTAL, HALF, BURST, FREE, DRAINED, WORDS, LINES, FIRST = range(8)
WRITER_FIELDS = 8


def _ramp(x: int) -> int:
    """0 + 1 + … + x, nothing below."""
    return x * (x + 1) // 2 if x > 0 else 0


def _below(diagonal: int, first: int, last: int, height: int) -> int:
    """Elements on earlier diagonals of columns [first, last) that are *height* rows tall."""
    near = _ramp(diagonal - first) - _ramp(diagonal - last)
    return near - (_ramp(diagonal - height - first) - _ramp(diagonal - height - last))


def _beside(diagonal: int, first: int, last: int, height: int, column: int) -> int:
    """Elements on the same diagonal, in columns [first, last) before *column*."""
    low = max(first, diagonal - height + 1)
    high = min(last, column, diagonal + 1)
    return max(0, high - low)


def _set_at(o: list[int], fold: int, step: int, column: int) -> int:
    """Prefetch set of the element in *column* of a stack's fold: its row there, or its step in the stream."""
    valid = o[LAST] if fold == o[FOLDS] - 1 else o[WIDTH]
    if o[DIAGONAL] == 0:
        return (fold * o[DEPTH] * o[WIDTH] + step * valid + column) // o[SET]
    diagonal = fold * o[LENGTH] + step + column
    height = o[LENGTH] * o[FOLDS]
    short = height - o[LENGTH]
    rank = _below(diagonal, 0, o[LAST], height) + _below(diagonal, o[LAST], o[WIDTH], short)
    rank += _beside(diagonal, 0, o[LAST], height, column) + _beside(diagonal, o[LAST], o[WIDTH], short, column)
    return rank // o[SET]


def _step(o: list[int], sub: int, line: int, column: int) -> int:
    """Row (pinned) or step (streamed) of the element that *column* demands at *line*."""
    return sub * o[ROWS] + o[ROWS] - 1 - line if o[DIAGONAL] == 0 else line - o[OFFSET] - column


def _set_of(o: list[int], fold: int, sub: int, line: int, column: int) -> int:
    """Prefetch set of the element that *column* demands at *line* of a fold."""
    return _set_at(o, fold, _step(o, sub, line, column), column)


def _holds(o: list[int], wanted: int) -> bool:
    """Whether a set is in the window."""
    below = wanted < o[END]
    return (o[START] <= wanted and below) or (o[START] >= o[END] and (o[START] <= wanted or below))


def _elsewhere(o: list[int], fold: int, sub: int, line: int, column: int) -> bool:
    """Whether the window holds the word as a part of another patch."""
    if o[KERNEL] == 0:
        return False
    lane, step = fold * o[WIDTH] + column, _step(o, sub, line, column)
    element, position = (step, lane) if o[LANES] == 1 else (lane, step)
    channel, place = element % o[CHANNELS], element // o[CHANNELS]
    y = position // o[WIDE] * o[STRIDE] + place // o[KERNEL]
    x = position % o[WIDE] * o[STRIDE] + place % o[KERNEL]
    for down in range(o[KERNEL]):
        row = (y - down) // o[STRIDE]
        if (y - down) % o[STRIDE] != 0 or row < 0 or row >= o[HIGH]:
            continue
        for across in range(o[KERNEL]):
            col = (x - across) // o[STRIDE]
            if (x - across) % o[STRIDE] != 0 or col < 0 or col >= o[WIDE]:
                continue
            other, where = (down * o[KERNEL] + across) * o[CHANNELS] + channel, row * o[WIDE] + col
            lane, step = (where, other) if o[LANES] == 1 else (other, where)
            if _holds(o, _set_at(o, lane // o[WIDTH], step, lane % o[WIDTH])):
                return True
    return False


def _span(o: list[int], fold: int, sub: int, line: int) -> tuple[int, int]:
    """First and last column that demand something at *line*."""
    valid = o[LAST] if fold == o[FOLDS] - 1 else o[WIDTH]
    if o[DIAGONAL] == 0:
        return 0, valid - 1
    step = line - o[OFFSET]
    return max(0, step - o[LENGTH] + 1), min(valid - 1, step)


def _inside(o: list[int], fold: int, sub: int, line: int) -> bool:
    """Whether all demands of *line* are in the window (which may wrap around)."""
    low, high = _span(o, fold, sub, line)
    first, last = _set_of(o, fold, sub, line, low), _set_of(o, fold, sub, line, high)
    if o[START] < o[END]:
        return o[START] <= first and last < o[END]
    return first >= o[START] or last < o[END]


def _next_miss(o: list[int], fold: int, sub: int, line: int) -> int:
    """First line from *line* on with a demand outside the window; sets only grow (streams) or shrink (pinned rows)."""
    valid = o[LAST] if fold == o[FOLDS] - 1 else o[WIDTH]
    if o[DIAGONAL] == 0:
        begin, end = o[ROWS] - min(o[ROWS], o[DEPTH] - sub * o[ROWS]), o[ROWS] - 1
    else:
        begin, end = o[OFFSET], o[OFFSET] + o[LENGTH] + valid - 2
    low = max(line, begin)
    if o[SETS] <= o[ACTIVE] or low > end:
        return NEVER
    if not _inside(o, fold, sub, low):
        return low
    upper = False
    if o[START] >= o[END]:
        upper = _set_of(o, fold, sub, low, _span(o, fold, sub, low)[0]) >= o[START]
        if upper == (o[DIAGONAL] == 1):
            return NEVER  # moving away from the gap of the wrapped window
    if _inside(o, fold, sub, end):
        first = _set_of(o, fold, sub, end, _span(o, fold, sub, end)[0])
        if o[START] < o[END] or (first >= o[START]) == upper:
            return NEVER
    high = end
    while high - low > 1:
        middle = (low + high) // 2
        first = _set_of(o, fold, sub, middle, _span(o, fold, sub, middle)[0])
        same = o[START] < o[END] or (first >= o[START]) == upper
        if same and _inside(o, fold, sub, middle):
            low = middle
        else:
            high = middle
    return high


def _read(o: list[int], fold: int, sub: int, line: int, cycle: int) -> int:
    """Serve one line of demands; moves the window where it must. Returns the stall (may be negative)."""
    offset = 1
    low, high = _span(o, fold, sub, line)
    for column in range(low, high + 1):
        wanted = _set_of(o, fold, sub, line, column)
        while True:
            if _holds(o, wanted) or _elsewhere(o, fold, sub, line, column):
                break
            o[START] = (o[START] + o[STEP]) % o[SETS]
            o[END] = (o[START] + o[ACTIVE]) % o[SETS]
            o[READY] += o[WAIT]
            late = o[READY] - (cycle + offset)
            offset += late
            if late > 0:
                offset += late
    return offset - 1


def _outputs(w_offset: int, length: int, valid: int, line: int) -> int:
    """Results that left the array in lines before *line* of a fold."""
    return _below(line - w_offset, 0, valid, length)


def _next_write(w: list[int], first: int, length: int, valid: int, line: int, lines: int, cycle: int) -> int:
    """First line from *line* on at which the write buffer drains or is full; *cycle* is that of *line*."""
    before = _outputs(first, length, valid, line)
    low, high = line, lines - 1
    limit = max(0, w[FREE] - 1)  # while half of it drains, the buffer is full when nothing is free
    if cycle >= w[DRAINED]:
        limit = w[FREE] - (w[TOTAL] - w[HALF])
    else:
        over = line + w[DRAINED] - cycle
        if _outputs(first, length, valid, min(over, lines)) - before <= limit:
            if over >= lines:
                return NEVER
            low, limit = over, w[FREE] - (w[TOTAL] - w[HALF])
    if _outputs(first, length, valid, lines) - before <= limit:
        return NEVER
    while low < high:
        middle = (low + high) // 2
        if _outputs(first, length, valid, middle + 1) - before > limit:
            high = middle
        else:
            low = middle + 1
    return low


def _drain(w: list[int], partial: list[int], cycle: int) -> int:
    """Send half a buffer to memory; returns the last cycle of it. *partial* lists (line, words) of lines cut short."""
    if w[WORDS] > 0:
        partial.append(w[LINES])
        partial.append(w[WORDS])
        w[LINES] += 1
        w[WORDS] = 0
    end = min(w[FIRST] + (w[HALF] + w[BURST] - 1) // w[BURST], w[LINES])
    sent = (end - w[FIRST]) * w[BURST]
    count = end - w[FIRST]
    for i in range(len(partial) // 2 - 1, -1, -1):
        if partial[2 * i] < end - 1:
            break
        if partial[2 * i] == end - 1:
            sent -= w[BURST] - partial[2 * i + 1]
    w[FREE] += sent
    w[FIRST] = end
    return cycle + count - 1


def _take(w: list[int], count: int) -> None:
    """*count* words arrive without anything else happening."""
    w[FREE] -= count
    words = w[WORDS] + count
    w[LINES] += words // w[BURST]
    w[WORDS] = words % w[BURST]


def _write(w: list[int], partial: list[int], count: int, cycle: int) -> int:
    """Serve one line of *count* results; returns the stall."""
    now, left = cycle, count
    while left > 0:
        if now < w[DRAINED]:
            quiet = min(left, max(0, w[FREE] - 1))
        else:
            quiet = min(left, max(0, w[FREE] - (w[TOTAL] - w[HALF])))
        _take(w, quiet)
        left -= quiet
        if left == 0:
            break
        _take(w, 1)
        left -= 1
        if now < w[DRAINED]:
            now = w[DRAINED]
        else:
            w[DRAINED] = _drain(w, partial, now)
    return now - cycle


def _fold(
    a: list[int],
    b: list[int],
    w: list[int],
    partial: list[int],
    place: tuple[int, int, int, int],
    results: tuple[int, int, int],
    lines: int,
    begin: int,
) -> tuple[int, int]:
    """One fold that starts at cycle *begin*: (stall, part of it behind the last result).

    *place*: fold and sub-fold of either operand; *results*: first line with results, rows and columns of them.
    """
    fold_a, sub_a, fold_b, sub_b = place
    first, length, valid = results
    line, done, stall, behind = 0, 0, 0, 0
    miss_a, miss_b = _next_miss(a, fold_a, sub_a, 0), _next_miss(b, fold_b, sub_b, 0)
    while True:
        full = _next_write(w, first, length, valid, line, lines, begin + line + stall)
        at = min(miss_a, miss_b, full)
        if at >= lines:
            break
        cycle, wait = begin + at + stall, 0
        if miss_a == at:
            wait = max(wait, _read(a, fold_a, sub_a, at, cycle))
            miss_a = _next_miss(a, fold_a, sub_a, at + 1)
        if miss_b == at:
            wait = max(wait, _read(b, fold_b, sub_b, at, cycle))
            miss_b = _next_miss(b, fold_b, sub_b, at + 1)
        out = _outputs(first, length, valid, at)
        _take(w, out - done)
        done = _outputs(first, length, valid, at + 1)
        late = _write(w, partial, done - out, cycle)
        behind = max(0, wait - late) if at == lines - 1 else 0
        stall += max(wait, late)
        line = at + 1
    _take(w, _outputs(first, length, valid, lines) - done)
    return stall, behind


def _walk(a: list[int], b: list[int], w: list[int], shape: list[int]) -> int:
    """All folds; returns the stall cycles up to the last result.

    ``shape``: row folds, column folds, lines of a fold, which fold index a and b are stacked by (0 rows, 1 columns),
    first line with results, columns of a full and of the last column fold, rows of results of a full and of the last
    row fold, whether results are pinned (output stationary).
    """
    row_folds, column_folds, lines = shape[0], shape[1], shape[2]
    partial = [-1, 0]  # no line is cut short there
    stall, base, behind = 0, 0, 0
    for column in range(column_folds):
        valid = shape[7] if column == column_folds - 1 else shape[6]
        for row in range(row_folds):
            length, first = shape[8], shape[5]
            if shape[10] == 1 and row == row_folds - 1:
                length, first = shape[9], shape[5] + shape[8] - shape[9]
            fold_a, sub_a = (row, column) if shape[3] == 0 else (column, row)
            fold_b, sub_b = (row, column) if shape[4] == 0 else (column, row)
            place, results = (fold_a, sub_a, fold_b, sub_b), (first, length, valid)
            waited, behind = _fold(a, b, w, partial, place, results, lines, base + stall)
            stall += waited
            base += lines
    return stall - behind  # a read behind the last result delays nothing


_HELPERS = (
    *(_ramp, _below, _beside, _set_at, _step, _set_of, _holds, _elsewhere, _span, _inside, _next_miss, _read),
    *(_outputs, _next_write, _drain, _take, _write, _fold),
)
walk = Accelerated(_walk, _HELPERS, arrays=(0, 1, 2, 3), whole=(0, 1, 2, 3))
"""Stall cycles up to the last result: plain Python first, compiled when it pays."""
