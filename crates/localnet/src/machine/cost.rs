//! What each operator of Wasm costs, in instructions: the weights of the Internet Computer.
//!
//! Source: `instruction_to_cost` of the replica's `instrumentation.rs`. Like there, a function costs 1 to
//! enter, and an operator that works on so many bytes or elements costs 1 more for each.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// What the heaviest operators cost. The engine's table holds bytes; the rest is made up for by operators
/// that do nothing, put before each (see `module::Shape`).
const HEAVIEST: u64 = 300;
const HEAVIEST_IN_TABLE: u8 = 255;
/// `nop`, of 1 each, that are to stand before `memory.grow`, `table.grow`, `data.drop` and `elem.drop`.
pub const NOPS_BEFORE_HEAVIEST: usize = (HEAVIEST - HEAVIEST_IN_TABLE as u64) as usize;

/// Operators not named here cost 1; block, loop, else and end cost nothing.
pub fn weights() -> OperatorCost {
    let mut cost = OperatorCost::new();
    macro_rules! set {
        ($weight:expr; $($operator:ident)*) => { $(cost.$operator = $weight;)* };
    }
    // Nothing to the engine, something to the Internet Computer.
    set!(1; Nop Drop Unreachable Return);
    set!(2; GlobalGet GlobalSet Br BrIf BrTable If);
    set!(3; ReturnCall);
    set!(5; Call TableGet TableSet RefIsNull);
    set!(10; CallIndirect I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU);
    set!(20; MemorySize);
    set!(60; ReturnCallIndirect);
    set!(100; TableSize MemoryCopy MemoryFill MemoryInit TableCopy TableFill TableInit);
    set!(130; RefFunc);
    set!(HEAVIEST_IN_TABLE; MemoryGrow TableGrow DataDrop ElemDrop);

    set!(2; F32Add F32Sub F32Mul F32Ceil F32Floor F32Trunc F32Nearest F32Copysign);
    set!(2; F64Add F64Sub F64Mul F64Ceil F64Floor F64Trunc F64Nearest);
    set!(3; F32Div F64Copysign);
    set!(5; F64Div F32Sqrt);
    set!(8; F64Sqrt);
    set!(18; F32Min F32Max F64Min F64Max);
    set!(3; F32Eq F32Ne F32Lt F32Gt F32Le F32Ge F64Eq F64Ne F64Lt F64Gt F64Le F64Ge);
    set!(3; F32ConvertI32S F32ConvertI64S F64ConvertI32S F64ConvertI64S);
    set!(16; F32ConvertI32U F32ConvertI64U F64ConvertI32U F64ConvertI64U);
    set!(20; I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U);
    set!(20; I64TruncF32S I64TruncF32U I64TruncF64S I64TruncF64U);
    set!(20; I32TruncSatF32S I32TruncSatF32U I32TruncSatF64S I32TruncSatF64U);
    set!(20; I64TruncSatF32S I64TruncSatF32U I64TruncSatF64S I64TruncSatF64U);

    set!(2; I8x16LtU I8x16GtU I16x8LtU I16x8GtU I8x16ShrU I16x8Shl I16x8ShrS I16x8ShrU);
    set!(2; I32x4Shl I32x4ShrS I32x4ShrU I64x2Shl I64x2ShrU I32x4Mul);
    set!(2; I16x8ExtAddPairwiseI8x16U I16x8ExtMulHighI8x16S I16x8ExtMulHighI8x16U);
    set!(2; I32x4ExtMulLowI16x8S I32x4ExtMulHighI16x8S I32x4ExtMulLowI16x8U I32x4ExtMulHighI16x8U);
    set!(2; F32x4Ceil F32x4Floor F32x4Trunc F32x4Nearest F32x4Abs F32x4Neg F32x4Add F32x4Sub F32x4Mul);
    set!(2; F64x2Ceil F64x2Floor F64x2Trunc F64x2Nearest F64x2Abs F64x2Neg F64x2Add F64x2Sub F64x2Mul);
    set!(2; I32x4TruncSatF32x4S I32x4TruncSatF64x2SZero);
    set!(3; I8x16Shuffle I8x16Popcnt I8x16Shl I8x16ShrS I64x2ShrS);
    set!(3; I32x4ExtAddPairwiseI16x8U I32x4TruncSatF64x2UZero);
    set!(4; I64x2Mul F32x4Min F32x4Max F64x2Min I32x4TruncSatF32x4U F32x4ConvertI32x4U);
    set!(5; F64x2Max F32x4Sqrt);
    set!(10; F32x4Div);
    set!(12; F64x2Div);
    set!(14; F64x2Sqrt);

    cost.variable = VariableOperatorCost {
        memory_copy_per_byte: 1,
        memory_fill_per_byte: 1,
        memory_init_per_byte: 1,
        memory_grow_per_page: 0,
        table_copy_per_element: 1,
        table_fill_per_element: 1,
        table_init_per_element: 1,
        table_grow_per_element: 0,
        ..VariableOperatorCost::new()
    };
    cost
}
