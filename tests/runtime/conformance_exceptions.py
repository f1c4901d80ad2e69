"""Cases of the standard that this runtime does not pass, by a pattern of their names, with the reason."""

SMALL_TYPES = "4-bit and 8-bit floating types and integers below 8 bits are not held by the runtime"
CONTROL_FLOW: dict[str, str] = {
    r"affine_grid": "the case computes a Range of arrays, which the standard does not have",
    r"if_seq|if_opt|loop13_seq|loop16_seq|sequence_map|sequence_insert|split_to_sequence": "lists as inputs or outputs",
    r"scan_sum": "the Scan of opset 8 had another form, and is refused",
}
EXCEPTIONS: dict[str, str] = {
    r"(?i)e4m3|e5m2|e8m0|e2m1|int4|int2($|_)|int2_": SMALL_TYPES,
    r"string": "strings are no numbers",
    r"range_bfloat16": "NumPy has no bfloat16 range",
    r"bf16_expanded": "bfloat16 sums round elsewhere, by more than the tolerance of the case",
    r"causal_conv.*fp16_expanded": "onnxruntime has no float16 convolution on a CPU, and the runtime leaves it to it",
    r"training_mode|training_dropout(?!_zero)": "training happens in `cimc train`: networks are exported for inference",
    r"(blackman|hamming|hann)window.*expanded": "a computed size: the length of the window is an input",
    r"center_crop_pad.*expanded": "a computed size: the target shape is an input",
    r"quantizelinear_blocked_symmetric": SMALL_TYPES,
}
