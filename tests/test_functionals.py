"""Hybrid functionals are known by name, without PySCF, as PySCF knows them."""

import pytest
from pyscf.dft import libxc

from helm_scale.functionals import has_exact_exchange


def test_names_of_pyscf_are_hybrids_where_pyscf_says_so() -> None:
    # Of the codes those of whole functionals; PySCF's aliases are what people write.
    names = [*libxc.XC_ALIAS, *(name for name in libxc.XC_CODES if name.startswith("HYB_"))]
    assert len(names) > 200
    wrong = [name for name in names if has_exact_exchange(name) != libxc.is_hybrid_xc(name)]
    assert not wrong


@pytest.mark.parametrize(
    "xc", ["wb97m-v", "wB97X-D3", "b3lyp", "B3LYP5", "b3lyp-d3bj", "pbe0", "hf", "HSE06", "m06-2x",
           "0.2*HF + 0.8*b88, lyp", "camb3lyp", "r2scan0", "tpssh", "hyb_gga_xc_wb97x_d"],
)  # fmt: skip
def test_hybrids(xc: str) -> None:
    assert has_exact_exchange(xc)


@pytest.mark.parametrize(
    "xc", ["pbe", "PBE", "pbe,pbe", "r2scan", "r2scan-d4", "blyp-d3bj", "b97m-v", "tpss", "lda,vwn",
           "0.8*b88 + 0.2*lda, lyp", "revpbe", "b97-d", "m06-l", ""],
)  # fmt: skip
def test_semilocal_functionals(xc: str) -> None:
    assert not has_exact_exchange(xc)
