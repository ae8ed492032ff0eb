"""What SAEs compute in."""

from __future__ import annotations

from inference.errors import InvalidRequest

DTYPES = ("auto", "float32", "bfloat16", "float64")


def precision(name: str, model_dtype: str) -> str:
    """ "auto" is float32, and float64 in a float64 model: an SAE that is stored in less is read in float32.

    Raises InvalidRequest("bad_dtype").
    """
    if name not in DTYPES:
        raise unknown_dtype(name)
    if name == "auto":
        return "float64" if model_dtype == "float64" else "float32"
    return name


def unknown_dtype(name: str) -> InvalidRequest:
    return InvalidRequest("bad_dtype", f"STEERBOARD_SAES_DTYPE={name!r} is not known. Use {', '.join(DTYPES)}.")
