"""The sections of a chip description but the cell: array, weights, converters, cores, cost, area; units in the keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A table of a chip file: no unknown keys, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Array(Section):
    """One physical crossbar: word lines (rows, inputs) by bit lines (columns, outputs).

    spare_columns: of `columns`, kept free for repair. columns_per_adc: bit lines that share a converter; the time this
    takes is part of `cost.mvm_us`, the number of converters sets their area.
    """

    rows: int = Field(gt=0, le=1 << 16)
    columns: int = Field(gt=0, le=1 << 16)
    spare_columns: int = Field(default=0, ge=0)
    columns_per_adc: int = Field(default=1, gt=0)
    per_chip: int = Field(gt=0, description="physical arrays on one chip")


class Weights(Section):
    """How one signed weight becomes devices.

    scheme:
        differential: G+ and G-, the idle one at G_min, in two columns side by side.
        differential-rows: G+ and G- in two rows one below the other, driven with opposite voltages.
        offset: one device holds weight + offset; `offset_columns` of each array hold what is subtracted.
        single: one device holds the weight's stored code.
    bits: of a stored weight, in devices of `bits_per_cell`; None: one device (or pair) takes the whole weight. More
    bits than a cell has are cut into ceil(bits / bits_per_cell) bit slices, most significant first.
    slices_in: the slices of a weight lie side by side in `columns` of one array, or in as many `arrays` that are read
    together: then an array of the mapping is a logical one of that many physical arrays.
    depthwise: whether convolutions with one input channel a group lie on arrays or are left to the vector unit.
    """

    scheme: Literal["differential", "differential-rows", "offset", "single"] = "differential"
    bits: int | None = Field(default=None, ge=1, le=64)
    bits_per_cell: int | None = Field(default=None, ge=1, le=16)
    slices_in: Literal["columns", "arrays"] = "columns"
    offset_columns: int = Field(default=0, ge=0)
    depthwise: Literal["crossbar", "digital"] = "crossbar"

    @model_validator(mode="after")
    def _check_bits(self) -> "Weights":
        if (self.bits is None) != (self.bits_per_cell is None):
            raise ValueError("bits and bits_per_cell go together")
        if self.offset_columns and self.scheme != "offset":
            raise ValueError('offset_columns needs scheme = "offset"')
        return self

    @property
    def slices(self) -> int:
        """Bit slices of a weight."""
        return 1 if self.bits is None or self.bits_per_cell is None else -(-self.bits // self.bits_per_cell)


class Input(Section):
    """The input converter (DAC). `bits` None: ideal, no rounding and no limit.

    encoding:
        bit-serial-accumulated: the bit currents are halved and added in the analog domain and converted once.
        bit-serial: `bits_per_cycle` bits at a time, each converted and added digitally.
        pulse-width: the input is the length of a pulse; the charge is converted once.
    signed: a layer with negative inputs is read in two phases (positive part, negative part) and subtracted digitally;
    one-phase: the converter applies both signs at once.
    """

    bits: int | None = Field(default=None, ge=1, le=32)
    encoding: Literal["ideal", "bit-serial-accumulated", "bit-serial", "pulse-width"] = "ideal"
    bits_per_cycle: int = Field(default=1, ge=1, le=32)
    signed: Literal["two-phase", "one-phase"] = "two-phase"

    @property
    def conversions(self) -> int:
        """Output conversions of one column in one MVM: one for each input cycle where these are converted singly."""
        return -(-self.bits // self.bits_per_cycle) if self.encoding == "bit-serial" and self.bits else 1


class Adc(Section):
    """The output converter. `bits` None: ideal, no rounding and no limit. The range starts at 0 uA.

    A chip that the runtime does not simulate (see `Chip.not_simulated`) may leave the range out.
    """

    bits: int | None = Field(default=None, ge=1, le=16)
    range_uA: Positive | None = None
    noise_lsb: NonNegative = 0.0

    @model_validator(mode="after")
    def _check_range(self) -> "Adc":
        if self.bits is None and self.range_uA is not None:
            raise ValueError("bits and range_uA go together")
        if self.bits is None and self.noise_lsb:
            raise ValueError("noise_lsb needs bits and range_uA")
        return self

    @property
    def lsb_uA(self) -> float:
        """Step of one code: range / (2^bits - 1). Only for a converter with bits."""
        if self.bits is None or self.range_uA is None:
            raise ValueError("an ideal ADC has no LSB")
        return self.range_uA / (2**self.bits - 1)


class Cores(Section):
    """Cores on a mesh, each with arrays, a vector unit and a memory. What is None is not modelled: it takes no time.

    mvm_start_ns: a core starts MVMs no faster; arrays of one core that share their inputs (the column blocks of one
    row block) start together. vector_bytes_per_ns: the vector unit of a core, bytes of its results. local_bytes_per_ns:
    between a core's memory and its arrays. link_bytes_per_ns: one mesh link in one direction. bus_bytes_per_ns: one bus
    for all cores, on which a transfer reaches any number of them, in place of the mesh. global_bytes_per_ns: the memory
    that all cores share (network inputs and outputs). activation_bits: of a value between layers.
    """

    count: int = Field(default=1, gt=0, le=1 << 12)
    mesh_rows: int = Field(default=1, gt=0)
    mesh_columns: int = Field(default=1, gt=0)
    mvm_start_ns: Positive | None = None
    vector_bytes_per_ns: Positive | None = None
    local_bytes_per_ns: Positive | None = None
    link_bytes_per_ns: Positive | None = None
    bus_bytes_per_ns: Positive | None = None
    global_bytes_per_ns: Positive | None = None
    buffer_bytes: int | None = Field(default=None, gt=0)
    activation_bits: int = Field(default=8, ge=1, le=64)

    @model_validator(mode="after")
    def _check_mesh(self) -> "Cores":
        if self.mesh_rows * self.mesh_columns < self.count:
            raise ValueError("mesh_rows x mesh_columns must hold all cores")
        return self

    @property
    def activation_bytes(self) -> float:
        """Bytes of a value between layers."""
        return self.activation_bits / 8


class Cost(Section):
    """Time and energy. `mvm_us`, `mvm_nj`: one MVM of one physical array (a tile op), converters included.

    The split of the MVM's energy is optional: with it, only rows driven and columns read are counted and `mvm_nj` is
    not needed. adc: one conversion. dac: one row for one MVM. array: one MVM of the whole array. shift_add: that of one
    conversion. digital_op: one operation of the vector unit on one element. local_byte: read from or written to a
    core's memory. link_byte: over one mesh link, or over the bus. global_byte: to or from the shared memory. row_write:
    programming one row of one array, all its columns at once; an array programmed anew is written in all its rows.
    """

    mvm_us: NonNegative
    mvm_nj: NonNegative | None = None
    adc_pj: NonNegative | None = None
    dac_pj: NonNegative | None = None
    array_pj: NonNegative | None = None
    shift_add_pj: NonNegative | None = None
    digital_op_pj: NonNegative | None = None
    local_byte_pj: NonNegative | None = None
    link_byte_pj: NonNegative | None = None
    global_byte_pj: NonNegative | None = None
    row_write_us: NonNegative | None = None
    row_write_nj: NonNegative | None = None

    @model_validator(mode="after")
    def _check_energy(self) -> "Cost":
        if self.mvm_nj is None and not self.by_component:
            raise ValueError("mvm_nj is missing, and so is its split (adc_pj, dac_pj, array_pj, shift_add_pj)")
        if self.mvm_nj is not None and self.by_component:
            raise ValueError("mvm_nj and its split (adc_pj, dac_pj, array_pj, shift_add_pj) exclude each other")
        return self

    @property
    def by_component(self) -> bool:
        """Whether the energy of an MVM is given by component."""
        return any(part is not None for part in (self.adc_pj, self.dac_pj, self.array_pj, self.shift_add_pj))


class Area(Section):
    """Area of one of each component. core: digital logic, buffers and router of a core, once a core."""

    array_mm2: NonNegative = 0.0
    adc_mm2: NonNegative = 0.0
    dac_mm2: NonNegative = 0.0
    shift_add_mm2: NonNegative = 0.0
    core_mm2: NonNegative = 0.0
