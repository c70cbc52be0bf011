"""Every spelling of a dtype leads to one NumPy dtype, and to one safetensors tag."""

import pickle

import ml_dtypes
import numpy as np
import pytest

import numparam
from numparam import dtypes
from numparam.errors import NumparamError


@pytest.mark.parametrize("name", dtypes.TABLE)
def test_name_object_and_scalar_type_are_the_same_dtype(name: str) -> None:
    dtype = dtypes.as_dtype(name)
    assert dtype.name == name
    assert dtypes.as_dtype(dtype) == dtypes.as_dtype(dtype.type) == dtype
    assert pickle.loads(pickle.dumps(dtype)) == dtype


@pytest.mark.parametrize("name", dtypes.TABLE)
def test_top_level_attribute_is_the_dtype(name: str) -> None:
    found = getattr(numparam, "bool_" if name == "bool" else name)
    assert isinstance(found, np.dtype)
    assert found == dtypes.as_dtype(name)


@pytest.mark.parametrize("name", [name for name, (tag, _) in dtypes.TABLE.items() if tag])
def test_tag_round_trip(name: str) -> None:
    assert dtypes.from_tag(dtypes.tag(dtypes.as_dtype(name))).name == name


def test_ml_dtypes_objects_are_known() -> None:
    assert dtypes.as_dtype(ml_dtypes.bfloat16) == numparam.bfloat16
    assert dtypes.type_name(numparam.bfloat16) == "BFloat16"


def test_foreign_byte_order_becomes_native() -> None:
    assert dtypes.as_dtype(">f4").isnative


@pytest.mark.parametrize("wrong", [None, "float31", "int4", object, "U3", "datetime64[s]", 7])
def test_unknown_dtype_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="no dtype") as caught:
        dtypes.as_dtype(wrong)
    assert isinstance(caught.value, NumparamError)


def test_unknown_tag_and_missing_tag() -> None:
    with pytest.raises(TypeError, match="safetensors tag 'F4'"):
        dtypes.from_tag("F4")
    with pytest.raises(TypeError, match="cannot hold complex128"):
        dtypes.tag(numparam.complex128)


def test_floating() -> None:
    assert [name for name in dtypes.TABLE if dtypes.is_floating(dtypes.as_dtype(name))] == [
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
    ]


def test_missing_attribute_says_its_name() -> None:
    with pytest.raises(AttributeError, match="float31"):
        _ = numparam.float31  # type: ignore[attr-defined]
