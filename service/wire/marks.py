"""Which of 64 bytes are marks of JSON, a bit each: most bytes of a body belong to numbers, of which none need be read.

LLVM does not find such words of bits in a loop over bytes; for that reason alone they are spelled out. It makes of them
what the machine has, wide comparisons or none: the answer is the same.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

WIDTH = 64
"""Bytes that are looked at once: bit j of an int64 is byte j."""

_LANES = 32
_WORD = ir.IntType(64)
_BLOCK = ir.VectorType(ir.IntType(8), _LANES)

QUOTE, COMMA, COLON, ESCAPE = 34, 44, 58, 92
# The brackets of lists and of objects differ in this bit alone.
_BRACE, _OPENING, _CLOSING = 32, 123, 125


@intrinsic
def json_marks(typing_context: Any, data: Any, i: Any) -> Any:
    """Of the bytes data[i] to data[i + 63], which must be there: (breaks, quotes, escapes, commas, colons, openings).

    `breaks` are the bytes that end a number: colons, brackets, and whatever is no greater than a comma, such as blanks
    and quotes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])

        def everywhere(value: int) -> Any:
            return ir.Constant(_BLOCK, [value] * _LANES)

        def least(one: Any, other: Any) -> Any:
            return builder.select(builder.icmp_unsigned("<", one, other), one, other)

        def bits(zeros: Any) -> Any:
            equal = builder.icmp_unsigned("==", zeros, everywhere(0))
            return builder.zext(builder.bitcast(equal, ir.IntType(_LANES)), _WORD)

        def found(first: int) -> list[Any]:
            at = builder.add(arguments[1], context.get_constant(types.int64, first))
            block = builder.load(builder.bitcast(builder.gep(array.data, [at]), _BLOCK.as_pointer()), align=1)
            folded = builder.or_(block, everywhere(_BRACE))

            def unlike(values: Any, value: int) -> Any:
                return builder.xor(values, everywhere(value))

            low = builder.sub(block, least(block, everywhere(COMMA)))
            colons, openings = unlike(block, COLON), unlike(folded, _OPENING)
            # One comparison a mark: of the bits of several, put together, LLVM makes single bytes.
            breaks = least(least(low, colons), least(openings, unlike(folded, _CLOSING)))
            marks = (breaks, unlike(block, QUOTE), unlike(block, ESCAPE), unlike(block, COMMA), colons, openings)
            return [bits(lanes) for lanes in marks]

        words = [
            builder.or_(low, builder.shl(high, ir.Constant(_WORD, _LANES)))
            for low, high in zip(found(0), found(_LANES), strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.int64, 6)(data, i), generate  # type: ignore[no-untyped-call]


def _of_bits(instruction: Callable[[Any, Any], Any]) -> Any:
    def of_bits(typing_context: Any, bits: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, arguments[0])

        return types.int64(types.int64), generate

    return intrinsic(of_bits)


n_set = _of_bits(lambda builder, bits: builder.ctpop(bits))
"""How many bits are set."""
first_set = _of_bits(lambda builder, bits: builder.cttz(bits, ir.Constant(ir.IntType(1), 0)))
"""The place of the lowest bit set; 64 if none is."""
