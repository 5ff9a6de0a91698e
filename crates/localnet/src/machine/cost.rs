//! What each operator of Wasm costs, in instructions: the weights of the Internet Computer.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// Operators not named here cost 1; block, loop, else and end cost nothing.
pub fn weights() -> OperatorCost {
    let mut cost = OperatorCost::new();
    macro_rules! set {
        ($weight:literal: $($operator:ident)*) => { $(cost.$operator = $weight;)* };
    }
    set!(2: GlobalGet GlobalSet Br BrIf BrTable If Return);
    set!(5: Call);
    set!(10: CallIndirect I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU);
    set!(2: F32Add F32Sub F32Mul F64Add F64Sub F64Mul);
    set!(3: F32Div);
    set!(5: F64Div);
    set!(18: F32Min F32Max F64Min F64Max);
    set!(20: I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U I64TruncF32S I64TruncF32U I64TruncF64S I64TruncF64U);
    set!(20: MemorySize);
    // 300 in the Internet Computer; the table holds bytes.
    set!(255: MemoryGrow);
    set!(100: MemoryCopy MemoryFill MemoryInit TableCopy TableFill TableInit);
    set!(130: RefFunc);
    let mut variable = VariableOperatorCost::new();
    (
        variable.memory_copy_per_byte,
        variable.memory_fill_per_byte,
        variable.memory_init_per_byte,
    ) = (1, 1, 1);
    cost.variable = variable;
    cost
}
