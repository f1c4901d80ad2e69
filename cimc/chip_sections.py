"""The sections of a chip description but the cell: array, weights, converters, cores, cost, area; units in the keys."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# In the units of their keys no figures of a chip are beyond these; products of several are then numbers in float32.
LEAST, MOST = 1e-12, 1e12


def _within(number: float) -> float:
    if abs(number) > MOST:
        raise ValueError(f"beyond what physics allows, {MOST:g} in the unit of the key")
    return number


def _above(number: float) -> float:
    if number < LEAST:
        raise ValueError(f"below what physics allows, {LEAST:g} in the unit of the key")
    return _within(number)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_above)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_within)]
Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_within)]


class Section(BaseModel):
    """A table of a chip file: no unknown keys, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Array(Section):
    """One physical crossbar: word lines (rows, inputs) by bit lines (columns, outputs)."""

    rows: int = Field(gt=0, le=1 << 16, description="word lines of one array")
    columns: int = Field(gt=0, le=1 << 16, description="bit lines of one array, spare and offset columns included")
    spare_columns: int = Field(default=0, ge=0, description="of `columns`, kept free for repair")
    columns_per_adc: int = Field(
        default=1,
        gt=0,
        description="bit lines that share an ADC: sets how many there are, and so their area; the time that sharing "
        "takes is part of cost.mvm_us",
    )
    per_chip: int = Field(gt=0, le=1 << 30, description="physical arrays on one chip")


class Weights(Section):
    """How one signed weight becomes devices."""

    scheme: Literal["differential", "differential-rows", "offset", "single"] = Field(
        default="differential",
        description="differential: G+ and G-, the idle one at G_min, in two columns side by side; differential-rows: "
        "in two rows one below the other, driven with opposite voltages; offset: one device holds weight + offset, and "
        "offset_columns what is subtracted; single: one device holds the weight's stored code, two's complement in "
        "one-bit cells, with the offset added in cells of more bits",
    )
    bits: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="bits of a stored weight, sign included, cut into ceil(bits / bits_per_cell) bit slices, most "
        "significant first. Left out: one device (or pair) takes the whole weight",
    )
    bits_per_cell: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="bits that one device holds, in 2^bits_per_cell states spread evenly over its window; with `bits`. "
        "Of a cell with levels each of these states is one",
    )
    slices_in: Literal["columns", "arrays"] = Field(
        default="columns",
        description="where the bit slices of a weight lie: side by side in columns of one array, or in as many arrays "
        "that are read together (an array of the mapping is then that many physical ones)",
    )
    offset_columns: int = Field(
        default=0,
        ge=0,
        description='columns of each array set aside for the offset of scheme = "offset"; the first of them is the '
        "reference, of devices as the others, written and read with them. 0: the digital side subtracts the offset "
        "times the sum of the inputs",
    )
    depthwise: Literal["crossbar", "digital"] = Field(
        default="crossbar",
        description="convolutions with one input channel a group: on arrays, or left to the vector unit",
    )

    @model_validator(mode="after")
    def _check_bits(self) -> "Weights":
        if (self.bits is None) != (self.bits_per_cell is None):
            raise ValueError("bits and bits_per_cell go together")
        if self.bits == 1:
            raise ValueError("bits is at least 2: one of them is the sign")
        if self.scheme == "single" and self.bits is None:
            raise ValueError('scheme = "single" holds the code of a weight and needs bits and bits_per_cell')
        if self.offset_columns and self.scheme != "offset":
            raise ValueError('offset_columns needs scheme = "offset"')
        return self

    @property
    def slices(self) -> int:
        """Bit slices of a weight."""
        return 1 if self.bits is None or self.bits_per_cell is None else -(-self.bits // self.bits_per_cell)


class Input(Section):
    """The input converter (DAC)."""

    bits: int | None = Field(
        default=None, ge=1, le=32, description="bits of an input code. Left out: ideal, no rounding and no limit"
    )
    encoding: Literal["ideal", "bit-serial-accumulated", "bit-serial", "pulse-width"] = Field(
        default="ideal",
        description="bit-serial-accumulated: the bit currents are halved and added in the analog domain and converted "
        "once; bit-serial: bits_per_cycle bits at a time, each converted and added digitally; pulse-width: the input "
        "is the length of a pulse, and the charge is converted once",
    )
    bits_per_cycle: int = Field(
        default=1, ge=1, le=32, description="input bits applied at once by bit-serial, at most bits; no others use it"
    )
    signed: Literal["two-phase", "one-phase"] = Field(
        default="two-phase",
        description="a layer with negative inputs: two-phase reads the positive and the negative part one after the "
        "other and subtracts digitally; one-phase: bits count the sign, and bit-serial inputs are two's complement, "
        "whose sign bit has a cycle of its own that is subtracted, while others drive rows with both polarities",
    )

    @model_validator(mode="after")
    def _check_cycles(self) -> "Input":
        if self.encoding == "bit-serial" and self.bits is not None and self.bits_per_cycle > self.bits:
            raise ValueError(f"bits_per_cycle {self.bits_per_cycle} is more than bits {self.bits}, all that there are")
        return self

    @property
    def conversions(self) -> int:
        """Output conversions of one column in one MVM: one for each input cycle where these are converted singly."""
        return -(-self.bits // self.bits_per_cycle) if self.encoding == "bit-serial" and self.bits else 1

    @property
    def signed_conversions(self) -> int:
        """Those of one phase of a layer with negative inputs: the sign bit of two's complement has a cycle of its own.

        With one bit a cycle they are as many, with more they may be one more.
        """
        if self.encoding != "bit-serial" or not self.bits or self.signed == "two-phase":
            return self.conversions
        return -(-(self.bits - 1) // self.bits_per_cycle) + 1


class Adc(Section):
    """The output converter."""

    bits: int | None = Field(
        default=None, ge=1, le=16, description="bits of an output code. Left out: ideal, no rounding and no limit"
    )
    range_uA: Positive | None = Field(
        default=None,
        description="current of the largest code, uA; currents beyond are clipped. The range starts at 0 uA, or is "
        "as wide to the other side where currents can be negative (differential-rows; one-phase inputs with both "
        "polarities). Left out: bit-serial reads of devices with states count exactly, one code for one state and one "
        "unit of input; others reach to the largest current of a full array",
    )
    sense: Literal["current", "voltage"] = Field(
        default="current",
        description="current: the column's current is converted; voltage: the voltage at which the open column "
        "settles, the mean of its rows' voltages weighted with their conductances. The digital side multiplies codes "
        "by the column's total conductance, measured once it is programmed",
    )
    range_mV: Positive | None = Field(
        default=None, description='voltage of the largest code of sense = "voltage", mV, to either side'
    )
    noise_lsb: NonNegative = Field(default=0.0, description="sd of the converter's own noise, codes")

    @model_validator(mode="after")
    def _check_range(self) -> "Adc":
        if self.bits is None and (self.range_uA is not None or self.range_mV is not None):
            raise ValueError("a range needs bits")
        if self.bits is None and self.noise_lsb:
            raise ValueError("noise_lsb needs bits")
        if self.sense == "voltage" and (self.range_uA is not None or self.bits is None or self.range_mV is None):
            raise ValueError('sense = "voltage" needs bits and range_mV, in place of range_uA')
        if self.sense == "current" and self.range_mV is not None:
            raise ValueError('range_mV needs sense = "voltage"')
        return self

    @property
    def lsb_uA(self) -> float:
        """Step of one code of a converter with a stated range whose codes begin at 0: range / (2^bits - 1)."""
        if self.bits is None or self.range_uA is None:
            raise ValueError("no range is stated")
        return self.range_uA / (2**self.bits - 1)


class Cores(Section):
    """Cores on a mesh, each with arrays, a vector unit and a memory. What is left out is not modelled: no time."""

    count: int = Field(default=1, gt=0, le=1 << 12, description="cores on one chip; arrays are shared out evenly")
    mesh_rows: int = Field(
        default=1, gt=0, le=1 << 12, description="rows of the mesh of cores; rows x columns holds all cores"
    )
    mesh_columns: int = Field(default=1, gt=0, le=1 << 12, description="columns of the mesh of cores")
    mvm_start_ns: Positive | None = Field(
        default=None,
        description="least time between two MVM starts of a core, ns; arrays of one core that share their inputs (the "
        "column blocks of one row block) start together",
    )
    vector_bytes_per_ns: Positive | None = Field(
        default=None, description="rate of a core's vector unit, bytes of its results a ns"
    )
    local_bytes_per_ns: Positive | None = Field(
        default=None, description="rate between a core's memory and its arrays, bytes a ns"
    )
    link_bytes_per_ns: Positive | None = Field(
        default=None, description="rate of one mesh link in one direction, bytes a ns"
    )
    bus_bytes_per_ns: Positive | None = Field(
        default=None,
        description="rate of one bus for all cores in place of the mesh and its links, bytes a ns; a transfer reaches "
        "any number of cores",
    )
    global_bytes_per_ns: Positive | None = Field(
        default=None,
        description="rate of the memory that all cores share, bytes a ns: network inputs and outputs, and on a bus "
        "values between cores where that is faster",
    )
    buffer_bytes: int | None = Field(
        default=None,
        gt=0,
        description="memory of a core for values, bytes; for the reader, the mapper is not held to it",
    )
    activation_bits: int = Field(
        default=8, ge=1, le=64, description="bits of a value between layers and of a partial sum, in transfers"
    )

    @model_validator(mode="after")
    def _check_mesh(self) -> "Cores":
        if self.mesh_rows * self.mesh_columns < self.count:
            raise ValueError("mesh_rows x mesh_columns must hold all cores")
        if self.bus_bytes_per_ns is not None and self.link_bytes_per_ns is not None:
            raise ValueError("bus_bytes_per_ns is of one bus in place of the links of link_bytes_per_ns; leave one out")
        return self

    @property
    def activation_bytes(self) -> float:
        """Bytes of a value between layers."""
        return self.activation_bits / 8


class Cost(Section):
    """Time and energy. What is left out counts nothing and is shown as not stated."""

    mvm_us: NonNegative = Field(
        description="time of one MVM of one physical array (a tile op), one read phase, converters included, us"
    )
    mvm_nj: NonNegative | None = Field(
        default=None,
        description="energy of one tile op, converters included, nJ; either this or its split (adc_pj, dac_pj, "
        "array_pj, shift_add_pj), with which only rows driven and columns read are counted. 0: not known, no energy is "
        "shown",
    )
    adc_pj: NonNegative | None = Field(default=None, description="energy of one output conversion, pJ")
    dac_pj: NonNegative | None = Field(default=None, description="energy of driving one row for one MVM, pJ")
    array_pj: NonNegative | None = Field(default=None, description="energy of one MVM of the whole array itself, pJ")
    shift_add_pj: NonNegative | None = Field(
        default=None, description="energy of shifting and adding one conversion, pJ"
    )
    digital_op_pj: NonNegative | None = Field(
        default=None, description="energy of one operation of the vector unit on one element, pJ"
    )
    local_byte_pj: NonNegative | None = Field(
        default=None, description="energy of a byte read from or written to a core's memory, pJ"
    )
    link_byte_pj: NonNegative | None = Field(
        default=None, description="energy of a byte over one mesh link, or over the bus, pJ"
    )
    global_byte_pj: NonNegative | None = Field(
        default=None, description="energy of a byte to or from the shared memory, pJ"
    )
    row_write_us: NonNegative | None = Field(
        default=None,
        description="time of programming one row of one array, all its columns at once, us; an array programmed anew "
        "is written in all its rows",
    )
    row_write_nj: NonNegative | None = Field(default=None, description="energy of programming one row of one array, nJ")

    @model_validator(mode="after")
    def _check_energy(self) -> "Cost":
        if self.mvm_nj is None and not self.by_component:
            raise ValueError(
                "mvm_nj is missing, and so is its split (adc_pj, dac_pj, array_pj, shift_add_pj); state one of them, "
                "where none is known mvm_nj = 0.0, which is shown as not stated"
            )
        if self.mvm_nj is not None and self.by_component:
            raise ValueError("mvm_nj and its split (adc_pj, dac_pj, array_pj, shift_add_pj) exclude each other")
        return self

    @property
    def by_component(self) -> bool:
        """Whether the energy of an MVM is given by component."""
        return any(part is not None for part in (self.adc_pj, self.dac_pj, self.array_pj, self.shift_add_pj))


class Area(Section):
    """Area of one of each component. What is left out counts nothing and is shown as not stated."""

    array_mm2: NonNegative | None = Field(default=None, description="one physical array without converters, mm2")
    adc_mm2: NonNegative | None = Field(default=None, description="one ADC, mm2")
    dac_mm2: NonNegative | None = Field(default=None, description="one DAC, of one row, mm2")
    shift_add_mm2: NonNegative | None = Field(default=None, description="one shift-and-add unit, of one ADC, mm2")
    core_mm2: NonNegative | None = Field(default=None, description="digital logic, buffers and router of one core, mm2")
