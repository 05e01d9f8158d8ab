"""The fast tier of decoding: a compiled scanner for well-formed orders. Pure; needs numba.

It reads an order where it lies and writes numbers into columns: no Python object for an order or a line. Whatever it
does not know for certain to be an acceptable order (an escape in a text, an unknown field, a number with a point, a
rule broken) it leaves to the plain tier, so it may be simple: what it takes must be right, what it leaves may be
anything.

Functions take addresses, see `sales.compiled`. Texts become codes of a `ScannedDictionary`, whose header they get.
"""

import numpy as np
import numpy.typing as npt

from sales.columnar.columns import (
    CATEGORY,
    COUNTRY,
    CUSTOMER,
    DISCOUNT,
    EVENT_TIME,
    FLAGS,
    HAS_CUSTOMER,
    HAS_ORIGINAL,
    ID_HIGH,
    ID_LOW,
    IS_RETURN,
    LINES,
    NAME,
    ORDER,
    ORIGINAL,
    ORIGINAL_BYTES,
    ORIGINAL_PLACE,
    PRODUCT,
    QUANTITY,
    ROW,
    UNIT_AMOUNT,
    UNIT_COST,
)
from sales.columnar.texts import Key
from sales.compiled import (
    byte_at,
    compiled,
    int_at,
    long_at,
    lowest,
    put_int,
    put_long,
    same,
    signed,
    trailing_zeros,
    word_at,
)
from sales.memory import PADDING
from sales.rules import MAX_AMOUNT, MAX_MESSAGE_BYTES, MAX_NAME, MAX_TEXT

HEADER_WORDS = 9
SLOTS, MASK, HASHES, ENDS, ARENA, COUNT, USED, ROOM, CODES = (8 * word for word in range(HEADER_WORDS))
"""A dictionary's header, places in bytes: addresses of the slots (uint64: the upper half of a hash and the code + 1; 0
where there is none), of the codes' hashes (uint64), of where each code's bytes end in the arena (int64, from code -1
on), and of the arena; the slots' number less one; how many codes and bytes there are, and may be."""

MEMO_BYTES = 128
MOST_MEMOS = 1 << 18
_MEMO_LENGTH, _MEMO_PRODUCT, _MEMO_NAME, _MEMO_CATEGORY, _MEMO_FIELDS, _MEMO_TEXT = 0, 4, 8, 12, 16, 24
_MEMO_ROOM = MEMO_BYTES - _MEMO_TEXT - 8  # a word behind what is compared is read
"""What follows a product's id in a line is nearly always what followed it before: its name, its category. So a memo
has the bytes from the id on, how many they are (0: nothing is written), the codes of the product, the name and the
category in them, and which of the last two fields are in them. Where these bytes come again they need not be read, only
compared: one place in memory instead of nine. A memo's place is the product's hash."""

NOT_MINE = -1
"""The order is left to the plain tier."""
NO_ROOM = -2
"""A dictionary is full: grow it, and go on from this row."""

_ID_BYTES, _PRODUCT_BYTES, _NAME_BYTES, _CATEGORY_BYTES = 64, 256, 1024, 256
"""Bytes up to which a text is certainly not longer than its rule says in characters."""

_u64 = np.uint64
_HALF = _u64(0xFFFFFFFF)
_ONES = _u64(0x0101010101010101)
_TOPS = _u64(0x8080808080808080)


def _word(text: str) -> np.uint64:
    return _u64(int.from_bytes(text.encode(), "little"))


_QUOTES, _BACKSLASHES, _SPACES = _word('"' * 8), _word("\\" * 8), _word(" " * 8)


@compiled("uint64(uint64, int64)")
def _rotated(word, bits):
    return (word << _u64(bits)) | (word >> _u64(64 - bits))


@compiled("UniTuple(uint64, 4)(uint64, uint64, uint64, uint64)")
def _round(v0, v1, v2, v3):
    v0 += v1
    v1 = _rotated(v1, 13) ^ v0
    v0 = _rotated(v0, 32)
    v2 += v3
    v3 = _rotated(v3, 16) ^ v2
    v0 += v3
    v3 = _rotated(v3, 21) ^ v0
    v2 += v1
    v1 = _rotated(v1, 17) ^ v2
    v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


@compiled("uint64(int64, int64, uint64, uint64)")
def siphash13(place, length, key0, key1):
    """SipHash-1-3 of some bytes (Aumasson and Bernstein, 2012: a keyed hash that nobody without the key can steer)."""
    v0 = key0 ^ _u64(0x736F6D6570736575)
    v1 = key1 ^ _u64(0x646F72616E646F6D)
    v2 = key0 ^ _u64(0x6C7967656E657261)
    v3 = key1 ^ _u64(0x7465646279746573)
    for _ in range(length >> 3):
        word = word_at(place)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
        place += 8
    word = (word_at(place) & lowest(length & 7)) | (_u64(length & 255) << _u64(56))
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0 ^= word
    v2 ^= _u64(255)
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@compiled("void(int64)")
def _enter_all(header):
    """Fills empty slots with all codes."""
    slots, mask, hashes = long_at(header + SLOTS), long_at(header + MASK), long_at(header + HASHES)
    for code in range(long_at(header + COUNT)):
        slot = long_at(hashes + 8 * code) & mask
        while long_at(slots + 8 * slot) != 0:
            slot = (slot + 1) & mask
        put_long(slots + 8 * slot, signed(word_at(hashes + 8 * code) & ~_HALF) + code + 1)


@compiled("int64(int64, int64, uint64, int64)")
def _code_of(place, length, wanted, header):
    """The code of a text with that hash, a new one if need be; NO_ROOM."""
    slots, mask = long_at(header + SLOTS), long_at(header + MASK)
    ends, arena = long_at(header + ENDS), long_at(header + ARENA)
    slot = signed(wanted) & mask
    met = word_at(slots + 8 * slot)
    while met != _u64(0):
        if (met ^ wanted) <= _HALF:
            code = signed(met & _HALF) - 1
            start = long_at(ends + 8 * code)
            if long_at(ends + 8 * code + 8) - start == length and same(place, arena + start, length):
                return code
        slot = (slot + 1) & mask
        met = word_at(slots + 8 * slot)
    count, used = long_at(header + COUNT), long_at(header + USED)
    if count == long_at(header + CODES) or used + length > long_at(header + ROOM):
        return NO_ROOM
    copied = 0
    while copied < length:  # whole words: what is written too much is room, or overwritten by the next text
        put_long(arena + used + copied, long_at(place + copied))
        copied += 8
    put_long(slots + 8 * slot, signed(wanted & ~_HALF) + count + 1)
    put_long(long_at(header + HASHES) + 8 * count, signed(wanted))
    put_long(ends + 8 * count + 8, used + length)
    put_long(header + COUNT, count + 1)
    put_long(header + USED, used + length)
    return count


@compiled("int64(int64, int64, uint64, uint64, int64)")
def code_of(place, length, key0, key1, header):
    """The code of a text."""
    return _code_of(place, length, siphash13(place, length, key0, key1), header)


@compiled("int64(int64)")
def _sequence(place):
    """How many bytes the UTF-8 sequence at ``place`` has, 2 to 4; 0 if it is none (RFC 3629)."""
    first, second = byte_at(place), byte_at(place + 1)
    if second & 0xC0 != 0x80:
        return 0
    if 0xC2 <= first <= 0xDF:
        return 2
    if byte_at(place + 2) & 0xC0 != 0x80:
        return 0
    if (first == 0xE0 and second >= 0xA0) or (first == 0xED and second <= 0x9F):
        return 3
    if 0xE1 <= first <= 0xEF and first != 0xED:
        return 3
    if byte_at(place + 3) & 0xC0 != 0x80:
        return 0
    if (first == 0xF0 and second >= 0x90) or 0xF1 <= first <= 0xF3 or (first == 0xF4 and second <= 0x8F):
        return 4
    return 0


@compiled("int64(int64, int64)")
def _text_end(place, end):
    """Where the quote is that ends the text which begins at ``place``; NOT_MINE: an escape, a control character, or no
    UTF-8. Eight bytes at a time: a byte below 0x20, a quote, a backslash or a byte that is not ASCII stops it."""
    while place < end:
        word = word_at(place)
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        special = (
            ((quote - _ONES) & ~quote) | ((backslash - _ONES) & ~backslash) | ((word - _SPACES) & ~word) | word
        ) & _TOPS
        if special == _u64(0):
            place += 8
            continue
        place += trailing_zeros(special) >> 3
        byte = byte_at(place)
        if byte == 34:
            return place if place < end else NOT_MINE
        if byte < 0x80:
            return NOT_MINE
        length = _sequence(place)
        if length == 0:
            return NOT_MINE
        place += length
    return NOT_MINE


@compiled("UniTuple(int64, 2)(int64, int64)")
def _number(place, most):
    """A number of at most ``most`` digits without sign, and its end; the end is NOT_MINE if it is none."""
    begin, value = place, 0
    digit = byte_at(place) - 48
    while 0 <= digit <= 9:
        value = value * 10 + digit
        place += 1
        if place - begin > most:
            return 0, NOT_MINE
        digit = byte_at(place) - 48
    if place == begin or (byte_at(begin) == 48 and place - begin > 1):
        return 0, NOT_MINE
    return value, place


@compiled("int64(int64)")
def _two(place):
    """Two digits; far below 0 if they are none."""
    tens, ones = byte_at(place) - 48, byte_at(place + 1) - 48
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1_000_000


@compiled("UniTuple(int64, 2)(int64)")
def _time(place):
    """RFC 3339 in capitals, ms since 1970, and the place behind it; the place is NOT_MINE if it is none."""
    if (
        byte_at(place + 4) != 45
        or byte_at(place + 7) != 45
        or byte_at(place + 10) != 84
        or byte_at(place + 13) != 58
        or byte_at(place + 16) != 58
    ):
        return 0, NOT_MINE
    year, month, day = _two(place) * 100 + _two(place + 2), _two(place + 5), _two(place + 8)
    hour, minute, second = _two(place + 11), _two(place + 14), _two(place + 17)
    if year < 1970 or not 1 <= month <= 12 or day < 1 or not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return 0, NOT_MINE
    if not 0 <= second <= 59:
        return 0, NOT_MINE
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = (29 if leap else 28) if month == 2 else 30 + ((month + (month >> 3)) & 1)
    if day > longest:
        return 0, NOT_MINE
    place += 19
    fraction, scale = 0, 100
    if byte_at(place) == 46:
        place += 1
        begin, digit = place, byte_at(place) - 48
        while 0 <= digit <= 9:
            fraction += digit * scale
            scale //= 10
            place += 1
            digit = byte_at(place) - 48
        if place == begin or place - begin > 9:
            return 0, NOT_MINE
    offset, sign = 0, byte_at(place)
    if sign == 90:
        place += 1
    elif sign in (43, 45):
        hours, minutes = _two(place + 1), _two(place + 4)
        if not 0 <= hours <= 23 or not 0 <= minutes <= 59 or byte_at(place + 3) != 58:
            return 0, NOT_MINE
        offset = (hours * 60 + minutes) * (1 if sign == 43 else -1)
        place += 6
    else:
        return 0, NOT_MINE
    # Days since 1970 from a civil date, with years that begin in March (H. Hinnant, days_from_civil).
    shifted = year - (1 if month <= 2 else 0)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    minutes_of_all = (days * 24 + hour) * 60 + minute - offset
    return (minutes_of_all * 60 + second) * 1000 + fraction, place


@compiled("int64(int64)")
def _skip(place):
    """The next place that is no white space."""
    while byte_at(place) in (32, 10, 13, 9):
        place += 1
    return place


_SCHEMA, _TYPE, _ORDER_ID, _EVENT_TI, _ME = map(_word, ('schema"', 'type"', "order_id", "event_ti", 'me"'))
_CUSTOMER, _ID, _COUNTRY, _CURRENCY, _LINES = map(_word, ("customer", '_id"', 'country"', "currency", 'lines"'))
_ORIGINAL, __ORDER_I, _D = map(_word, ("original", "_order_i", 'd"'))
_PRODUCT_, _ID_, _NAME_, _CATEGORY, _QUANTITY = map(_word, ("product_", 'id"', 'name"', "category", "quantity"))
_UNIT_AMO, _UNT, _UNIT_COS, _T, _DISCOUNT, _PERCENT = map(
    _word, ("unit_amo", 'unt"', "unit_cos", 't"', "discount", "_percent")
)
_SALE, _RETURN, _NULL = map(_word, ('"sale"', '"return"', "null"))

_F_PRODUCT, _F_NAME, _F_CATEGORY, _F_QUANTITY, _F_AMOUNT, _F_DISCOUNT, _F_COST = (1 << i for i in range(7))
_LINE_NEEDS = _F_PRODUCT | _F_QUANTITY | _F_AMOUNT


@compiled("UniTuple(int64, 2)(int64)")
def _line_field(place):
    """Which field of a line is called what begins at ``place`` (behind its quote), and the place behind; or 0."""
    word = word_at(place)
    more = word_at(place + 8)
    if word == _PRODUCT_:
        if more & lowest(3) == _ID_:
            return _F_PRODUCT, place + 11
        if more & lowest(5) == _NAME_:
            return _F_NAME, place + 13
    elif word == _CATEGORY and byte_at(place + 8) == 34:
        return _F_CATEGORY, place + 9
    elif word == _QUANTITY and byte_at(place + 8) == 34:
        return _F_QUANTITY, place + 9
    elif word == _UNIT_AMO and more & lowest(4) == _UNT:
        return _F_AMOUNT, place + 12
    elif word == _DISCOUNT and more == _PERCENT and byte_at(place + 16) == 34:
        return _F_DISCOUNT, place + 17
    elif word == _UNIT_COS and more & lowest(2) == _T:
        return _F_COST, place + 10
    return 0, place


@compiled("void(int64, int64, int64, int64, int64, int64, int64)")
def _learn(memo, product, begin, end, name, category, fields):
    """Writes a memo, if the product and what followed it have room in it."""
    length = end - begin
    if length > _MEMO_ROOM:
        return
    put_int(memo + _MEMO_LENGTH, length)
    put_int(memo + _MEMO_PRODUCT, product)
    put_int(memo + _MEMO_NAME, name)
    put_int(memo + _MEMO_CATEGORY, category)
    put_int(memo + _MEMO_FIELDS, fields)
    copied = 0
    while copied < length:  # whole words: the room is a number of them
        put_long(memo + _MEMO_TEXT + copied, long_at(begin + copied))
        copied += 8


@compiled("int64(int64, int64, int64, int64, int64, uint64, uint64, int64, int64, int64, int64, int64)")
def _scan_line(place, end, column, lines, width, key0, key1, products, names, categories, memos, memo_mask):
    """One line, from behind its opening brace; the place behind its closing one, NOT_MINE or NO_ROOM."""
    seen = 0
    # What is learnt of the product: where it begins and, once something follows it, ends.
    memo, product, name, category, learnt_from, learnt_to, learnt = 0, 0, 0, 0, 0, 0, 0
    put_long(lines + 8 * (NAME * width + column), 0)
    put_long(lines + 8 * (CATEGORY * width + column), 0)
    put_long(lines + 8 * (DISCOUNT * width + column), 0)
    put_long(lines + 8 * (UNIT_COST * width + column), -1)
    while True:
        place = _skip(place)
        if byte_at(place) != 34:
            return NOT_MINE
        field, place = _line_field(place + 1)
        if field == 0 or seen & field:
            return NOT_MINE
        seen |= field
        if learnt_from and field > _F_CATEGORY:
            if learnt:
                _learn(memo, product, learnt_from, learnt_to, name, category, learnt)
            learnt_from = 0
        place = _skip(place)
        if byte_at(place) != 58:
            return NOT_MINE
        place = _skip(place + 1)
        if field <= _F_CATEGORY:
            if byte_at(place) != 34:
                return NOT_MINE
            begin = place + 1
            place = _text_end(begin, end)
            if place < 0:
                return NOT_MINE
            length = place - begin
            if field == _F_PRODUCT:
                if length == 0 or length > _PRODUCT_BYTES:
                    return NOT_MINE
                wanted = siphash13(begin, length, key0, key1)
                memo = memos + MEMO_BYTES * (signed(wanted) & memo_mask)
                known, fields = int_at(memo + _MEMO_LENGTH), int_at(memo + _MEMO_FIELDS)
                if (
                    known > length  # the quote behind the id is in it, so the id is the same
                    and seen & fields == 0
                    and begin + known < end
                    and same(begin, memo + _MEMO_TEXT, known)
                ):
                    code = int_at(memo + _MEMO_PRODUCT)
                    if fields & _F_NAME:
                        put_long(lines + 8 * (NAME * width + column), int_at(memo + _MEMO_NAME))
                    if fields & _F_CATEGORY:
                        put_long(lines + 8 * (CATEGORY * width + column), int_at(memo + _MEMO_CATEGORY))
                    seen |= fields
                    place = begin + known - 1
                else:
                    code = product = _code_of(begin, length, wanted, products)
                    learnt_from = begin
                put_long(lines + 8 * (PRODUCT * width + column), code)
            elif field == _F_NAME:
                if length > _NAME_BYTES:
                    return NOT_MINE
                code = name = code_of(begin, length, key0, key1, names)
                put_long(lines + 8 * (NAME * width + column), code)
            else:
                if length > _CATEGORY_BYTES:
                    return NOT_MINE
                code = category = code_of(begin, length, key0, key1, categories)
                put_long(lines + 8 * (CATEGORY * width + column), code)
            if code < 0:
                return NO_ROOM
            place += 1
            if learnt_from and field != _F_PRODUCT:
                learnt |= field
                learnt_to = place
        elif field == _F_COST and word_at(place) & lowest(4) == _NULL:
            place += 4
        else:
            value, place = _number(place, 13)
            if place < 0 or value > MAX_AMOUNT:
                return NOT_MINE
            if field == _F_QUANTITY:
                if value < 1:
                    return NOT_MINE
                put_long(lines + 8 * (QUANTITY * width + column), value)
            elif field == _F_AMOUNT:
                put_long(lines + 8 * (UNIT_AMOUNT * width + column), value)
            elif field == _F_DISCOUNT:
                if value > 100:
                    return NOT_MINE
                put_long(lines + 8 * (DISCOUNT * width + column), value)
            else:
                put_long(lines + 8 * (UNIT_COST * width + column), value)
        place = _skip(place)
        if byte_at(place) == 125:
            break
        if byte_at(place) != 44:
            return NOT_MINE
        place += 1
    if learnt_from and learnt:
        _learn(memo, product, learnt_from, learnt_to, name, category, learnt)
    if seen & _LINE_NEEDS != _LINE_NEEDS:
        return NOT_MINE
    return place + 1


_F_SCHEMA, _F_TYPE, _F_ID, _F_TIME, _F_CUSTOMER, _F_COUNTRY, _F_CURRENCY, _F_LINES, _F_ORIGINAL = (
    1 << i for i in range(9)
)
_ORDER_NEEDS = _F_SCHEMA | _F_TYPE | _F_ID | _F_TIME | _F_COUNTRY | _F_CURRENCY | _F_LINES


@compiled("UniTuple(int64, 2)(int64)")
def _order_field(place):
    """Which field of an order is called what begins at ``place`` (behind its quote), and the place behind; or 0."""
    word = word_at(place)
    if word & lowest(7) == _SCHEMA:
        return _F_SCHEMA, place + 7
    if word & lowest(5) == _TYPE:
        return _F_TYPE, place + 5
    if word == _ORDER_ID and byte_at(place + 8) == 34:
        return _F_ID, place + 9
    if word == _EVENT_TI and word_at(place + 8) & lowest(3) == _ME:
        return _F_TIME, place + 11
    if word == _CUSTOMER and word_at(place + 8) & lowest(4) == _ID:
        return _F_CUSTOMER, place + 12
    if word == _COUNTRY:
        return _F_COUNTRY, place + 8
    if word == _CURRENCY and byte_at(place + 8) == 34:
        return _F_CURRENCY, place + 9
    if word & lowest(6) == _LINES:
        return _F_LINES, place + 6
    if word == _ORIGINAL and word_at(place + 8) == __ORDER_I and word_at(place + 16) & lowest(2) == _D:
        return _F_ORIGINAL, place + 18
    return 0, place


@compiled("int64(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, uint64, int64, int64, int64)")
def _scan_order(
    start, end, key_start, key_end, column, first_line, orders, height, lines, width, currency, countries, keys, texts
):
    """One order; how many lines it has, NOT_MINE or NO_ROOM."""
    key0, key1, key2, key3 = word_at(keys), word_at(keys + 8), word_at(keys + 16), word_at(keys + 24)
    seen, flags, count = 0, 0, 0
    put_long(orders + 8 * (CUSTOMER * height + column), 0)
    put_long(orders + 8 * (ORIGINAL * height + column), 0)
    put_long(orders + 8 * (ORIGINAL_PLACE * height + column), 0)
    place = _skip(start)
    if byte_at(place) != 123:
        return NOT_MINE
    place += 1
    while True:
        place = _skip(place)
        if byte_at(place) != 34:
            return NOT_MINE
        field, place = _order_field(place + 1)
        if field == 0 or seen & field:
            return NOT_MINE
        seen |= field
        place = _skip(place)
        if byte_at(place) != 58:
            return NOT_MINE
        place = _skip(place + 1)
        word = word_at(place)
        if field == _F_SCHEMA:
            if byte_at(place) != 49:
                return NOT_MINE
            place += 1
        elif field == _F_TYPE:
            if word & lowest(6) == _SALE:
                place += 6
            elif word == _RETURN:
                flags |= IS_RETURN
                place += 8
            else:
                return NOT_MINE
        elif field == _F_CUSTOMER:
            if word & lowest(4) == _NULL:
                place += 4
            else:
                negative = byte_at(place) == 45
                value, place = _number(place + 1 if negative else place, 18)
                if place < 0:
                    return NOT_MINE
                put_long(orders + 8 * (CUSTOMER * height + column), -value if negative else value)
                flags |= HAS_CUSTOMER
        elif field == _F_LINES:
            if byte_at(place) != 91:
                return NOT_MINE
            place = _skip(place + 1)
            while True:
                line = first_line + count
                if byte_at(place) != 123 or line == width:
                    return NOT_MINE
                place = _scan_line(
                    place + 1,
                    end,
                    line,
                    lines,
                    width,
                    key0,
                    key1,
                    long_at(texts),
                    long_at(texts + 8),
                    long_at(texts + 16),
                    long_at(texts + 24),
                    long_at(texts + 32),
                )
                if place < 0:
                    return place
                put_long(lines + 8 * (ORDER * width + line), column)
                count += 1
                place = _skip(place)
                if byte_at(place) == 93:
                    break
                if byte_at(place) != 44:
                    return NOT_MINE
                place = _skip(place + 1)
            place += 1
        elif field == _F_ORIGINAL and word & lowest(4) == _NULL:
            place += 4
        elif byte_at(place) != 34:
            return NOT_MINE
        elif field == _F_TIME:
            time, place = _time(place + 1)
            if place < 0 or byte_at(place) != 34:
                return NOT_MINE
            put_long(orders + 8 * (EVENT_TIME * height + column), time)
            place += 1
        elif field == _F_COUNTRY:
            first, second = byte_at(place + 1) - 65, byte_at(place + 2) - 65
            if not 0 <= first <= 25 or not 0 <= second <= 25 or byte_at(place + 3) != 34:
                return NOT_MINE
            if byte_at(countries + first * 26 + second) == 0:
                return NOT_MINE
            put_long(orders + 8 * (COUNTRY * height + column), first * 26 + second)
            place += 4
        elif field == _F_CURRENCY:
            if word_at(place + 1) & lowest(4) != currency:
                return NOT_MINE
            place += 5
        else:
            begin = place + 1
            place = _text_end(begin, end)
            length = place - begin
            if place < 0 or length == 0 or length > _ID_BYTES:
                return NOT_MINE
            if field == _F_ID:
                if length != key_end - key_start or not same(begin, key_start, length):
                    return NOT_MINE
                put_long(orders + 8 * (ID_LOW * height + column), signed(siphash13(begin, length, key0, key1)))
                put_long(orders + 8 * (ID_HIGH * height + column), signed(siphash13(begin, length, key2, key3)))
            else:
                put_long(orders + 8 * (ORIGINAL * height + column), signed(siphash13(begin, length, key0, key1)))
                put_long(orders + 8 * (ORIGINAL_PLACE * height + column), (begin - start) * ORIGINAL_BYTES + length)
                flags |= HAS_ORIGINAL
            place += 1
        place = _skip(place)
        if byte_at(place) == 125:
            break
        if byte_at(place) != 44:
            return NOT_MINE
        place += 1
    place += 1
    while place < end and byte_at(place) in (32, 10, 13, 9):  # not `_skip`: what follows may look like white space
        place += 1
    if place != end or seen & _ORDER_NEEDS != _ORDER_NEEDS:
        return NOT_MINE
    put_long(orders + 8 * (FLAGS * height + column), flags)
    put_long(orders + 8 * (LINES * height + column), count)
    return count


@compiled(
    "UniTuple(int64, 3)(int64, int64[:], int64[:], int64[:], int64[:], int64, int64, int64, int64, "
    "int64, int64, int64, int64, uint64, int64, int64, int64, uint8[:])"
)
def scan(
    data,
    key_starts,
    key_ends,
    value_starts,
    value_ends,
    first,
    row_offset,
    column,
    line,
    orders,
    height,
    lines,
    width,
    currency,
    countries,
    keys,
    texts,
    left,
):
    """Scans messages ``first`` to the last.

    Args:
        data: address of the buffer, see `sales.streams.packed`; the next four hold places in it.
        key_starts: of each message's key, -1 without one.
        key_ends: likewise.
        value_starts: of each message's value.
        value_ends: likewise.
        first: the message to begin with.
        row_offset: what is added to a message's number to give its row.
        column: how many orders were written before.
        line: how many lines were written before.
        orders: address of int64s, ORDER_COLUMNS rows of ``height``.
        height: how many orders fit: at least as many as messages.
        lines: address of int64s, LINE_COLUMNS rows of ``width``.
        width: how many lines fit; an order that doesn't is left to the plain tier.
        currency: three letters and a quote, as a word.
        countries: address of 676 bytes, not 0 where two letters are a country.
        keys: address of four words: the keys of two hashes.
        texts: address of the addresses of three dictionaries' headers (products, names, categories), the address of
            the memos, and their number less one.
        left: one byte a message: 1 is written where the message is left to the plain tier.

    Returns:
        The message where a dictionary was full (or their number), orders and lines written by now.
    """
    for message in range(first, len(value_starts)):
        key_start = key_starts[message]
        found = NOT_MINE
        if key_start >= 0 and value_ends[message] - value_starts[message] <= MAX_MESSAGE_BYTES:
            found = _scan_order(
                data + value_starts[message],
                data + value_ends[message],
                data + key_start,
                data + key_ends[message],
                column,
                line,
                orders,
                height,
                lines,
                width,
                currency,
                countries,
                keys,
                texts,
            )
        if found == NO_ROOM:
            return message, column, line
        left[message] = found < 0
        if found > 0:
            put_long(orders + 8 * (ROW * height + column), row_offset + message)
            column += 1
            line += found
    return len(value_starts), column, line


def no_memos(products: int) -> npt.NDArray[np.uint8]:
    """Memos, none of them written, enough for twice as many products; shape (a power of two, MEMO_BYTES)."""
    return np.zeros((min(1 << max(10, (4 * products).bit_length()), MOST_MEMOS), MEMO_BYTES), dtype=np.uint8)


_LONGEST = 4 * max(MAX_TEXT, MAX_NAME)
"""Bytes of a text, at most."""


class ScannedDictionary:
    """A `Dictionary` whose texts are bytes in one piece of memory, found by their hash; the scanner adds to it. Two
    slots, eight bytes of a hash, eight of a place and the text itself are all that a text costs."""

    def __init__(self, key: Key) -> None:
        self._keys = tuple(np.uint64(half) for half in key)
        self._header = np.zeros(HEADER_WORDS, dtype=np.int64)
        self._hashes = np.zeros(0, dtype=np.uint64)
        self._ends = np.zeros(1, dtype=np.int64)
        self._arena = np.zeros(0, dtype=np.uint8)
        self._texts: dict[int, str] = {}
        """those that were asked for"""
        self._grow(codes=1024, room=32_768)

    def __len__(self) -> int:
        return int(self._header[COUNT // 8])

    def size(self) -> int:
        """See `Dictionary`."""
        return int(self._header[USED // 8])

    @property
    def header(self) -> int:
        """The address that the scanner gets; growing does not move it."""
        return int(self._header.ctypes.data)

    def make_room(self) -> None:
        """Makes room for twice as many codes and bytes, if there might be none for another text."""
        used, room = int(self._header[USED // 8]), int(self._header[ROOM // 8])
        if len(self) == len(self._hashes) or used + _LONGEST > room:
            self._grow(codes=2 * len(self._hashes), room=2 * room)

    def code(self, text: str) -> int:
        """The text's number, a new one if need be."""
        raw = text.encode()
        place = np.frombuffer(raw + bytes(PADDING), dtype=np.uint8)
        while True:
            code = int(code_of(place.ctypes.data, len(raw), *self._keys, self.header))
            if code != NO_ROOM:
                return code
            self.make_room()

    def text(self, code: int) -> str:
        """The text of a number."""
        text = self._texts.get(code)
        if text is None:
            text = self._texts[code] = self._arena[self._ends[code] : self._ends[code + 1]].tobytes().decode()
        return text

    def hashes(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Keyed hashes of the texts of some numbers."""
        return self._hashes[codes]

    def joined(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """See `Dictionary`; the scanner may go on meanwhile."""
        return self._ends[: len(self) + 1], self._arena

    def _grow(self, *, codes: int, room: int) -> None:
        self._slots = np.zeros(2 * codes, dtype=np.uint64)
        self._hashes = np.concatenate((self._hashes, np.zeros(codes - len(self._hashes), dtype=np.uint64)))
        self._ends = np.concatenate((self._ends, np.zeros(codes + 1 - len(self._ends), dtype=np.int64)))
        self._arena = np.concatenate((self._arena, np.zeros(room + PADDING - len(self._arena), dtype=np.uint8)))
        for field, array in ((SLOTS, self._slots), (HASHES, self._hashes), (ENDS, self._ends), (ARENA, self._arena)):
            self._header[field // 8] = array.ctypes.data
        self._header[MASK // 8] = len(self._slots) - 1
        self._header[ROOM // 8] = room
        self._header[CODES // 8] = codes
        _enter_all(self.header)
