"""The innermost loop of the surface check: weights of nodes times a table of cosines or sines.

LLVM would load and store every sum once for a few nodes. Here the sums of eight places stay in registers while all the
nodes go by, which takes the multiply-adds that there are and little else. For that reason alone lanes are spelled out.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 8
"""Places that are summed at once."""
N_ROWS = 4
_LANES = 4
_LANE_VECTOR = ir.VectorType(ir.DoubleType(), _LANES)
_BYTES = 8


@intrinsic
def turned_sums(
    typing_context: Any, weights: Any, first_row: Any, n: Any, table: Any, table_at: Any, sums: Any, first_place: Any
) -> Any:
    """sums[first_row + r, first_place + i] = sum_j weights[first_row + r, j] table[table_at + j WIDTH + i], 0 <= j < n.

    r < N_ROWS, i < WIDTH. All three arrays are contiguous and of float64; the table has one dimension, the others two.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights_in, first_row_in, n_in, table_in, table_at_in, sums_in, first_place_in = arguments
        table_data = context.make_array(signature.args[3])(context, builder, table_in).data

        def number(value: int) -> Any:
            return context.get_constant(types.int64, value)

        def lanes_at(data: Any, index: Any) -> Any:
            return builder.bitcast(builder.gep(data, [index]), _LANE_VECTOR.as_pointer())

        def rows_of(position: int, array: Any, column: Any) -> list[Any]:
            matrix = context.make_array(signature.args[position])(context, builder, array)
            pitch = builder.extract_value(matrix.shape, 1)
            start = builder.add(builder.mul(first_row_in, pitch), column)
            return [(matrix.data, builder.add(start, builder.mul(pitch, number(r)))) for r in range(N_ROWS)]

        nothing = ir.Constant(_LANE_VECTOR, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        lanes = range(0, WIDTH, _LANES)
        held = [[cgutils.alloca_once(builder, _LANE_VECTOR) for _ in lanes] for _ in range(N_ROWS)]  # type: ignore[no-untyped-call]
        for row in held:
            for total in row:
                builder.store(ir.Constant(_LANE_VECTOR, [0.0] * _LANES), total)
        weight_rows = rows_of(0, weights_in, number(0))
        with cgutils.for_range(builder, n_in) as loop:
            at = builder.add(table_at_in, builder.mul(loop.index, number(WIDTH)))
            turns = [builder.load(lanes_at(table_data, builder.add(at, number(i))), align=_BYTES) for i in lanes]
            for (data, start), row in zip(weight_rows, held, strict=True):
                weight = builder.load(builder.gep(data, [builder.add(start, loop.index)]))
                alone = builder.insert_element(nothing, weight, ir.Constant(ir.IntType(32), 0))
                everywhere = builder.shuffle_vector(alone, nothing, first_lane)
                for turn, total in zip(turns, row, strict=True):
                    product = builder.fmul(everywhere, turn, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for (data, start), row in zip(rows_of(5, sums_in, first_place_in), held, strict=True):
            for i, total in zip(lanes, row, strict=True):
                builder.store(builder.load(total), lanes_at(data, builder.add(start, number(i))), align=_BYTES)
        return context.get_dummy_value()

    return types.void(weights, first_row, n, table, table_at, sums, first_place), generate
