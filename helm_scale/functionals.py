"""Which density functionals have exact exchange, by name.

PySCF asks libxc for it, but a node that trains has neither, so the names stand here; a test
compares them with PySCF's. Unknown names count as semilocal: their labels are still looked at.
"""

import re

# PySCF's spellings in lower case, without "-" and "_"; whatever libxc calls HYB_* is one, too.
_NAMES = """
    apbe0 apf b0kcis b1b95 b1lyp b1pw91 b1wc b3lyp b3lyp3 b3lyp5 b3lypg b3lypmcm1 b3lypmcm2
    b3lyps b3p86 b3p86g b3p86nwchem b3p86v5 b3pw91 b5050lyp b86b95 b88b95 b94hyb b97 b971 b971p
    b972 b973 b97k b98 bb1k bhandh bhandhlyp blyp35 bn05 br3p86 camb3lyp camhb3lyp camlda0
    camo3lyp campbeh camqtp00 camqtp01 camqtp02 camyb3lyp camyblyp camypbeh cap0 case21 cf22d
    dldf edf2 edmggah gas22 hapbe hflyp hfpw92 hjsb88 hjsb97x hjspbe hjspbesol hpbeint hse03
    hse06 hse12 hse12s hsesol kmlyp lb07 lcblyp lcblypea lcblypr lcbop lcpbeop lcqtp lctmlyp
    lcvv10 lcwpbe lcwpbe08whs lcwpbehwhs lcwpbesolwhs lcwpbewhs lcyblyp lcypbe lda0 lrcwpbe
    lrcwpbeh m05 m052x m06 m062x m06hf m06sx m11 m11l mb3lyprc04 mcamb3lyp mn12sx mn15 mpw1b95
    mpw1k mpw1kcis mpw1lyp mpw1pbe mpw1pw mpw3lyp mpw3lyp5 mpw3lypg mpw3pw mpw3pw5 mpw3pwg
    mpwb1k mpwkcis1k mpwlyp1m ms2h mvsh n12sx o3lyp opb3lyp pbe0 pbe013 pbe1kcis pbe1pbe pbe2x
    pbe38 pbe50 pbeb0 pbeh pbemol0 pbemolb0 pbesol0 pw6b95 pw86b95 pwb6k qtp17 r2scan0 r2scan50
    r2scanh rcamb3lyp relpbe0 revb3lyp revb3lyp5 revb3lypg revpbe0 revtpssh sb981a sb981b sb981c
    sb982a sb982b sb982c scan0 sogga11x tpss0 tpss1kcis tpssh tunedcamb3lyp wb97 wb97mv wb97x
    wb97xd wb97xd3 wb97xv wc04 whpbe0 wp04 x1b95 x3lyp x3lyp5 x3lypg xb1k
"""
_HYBRIDS = frozenset(_NAMES.split())
_EXACT_EXCHANGE = ("hf", "lrhf", "srhf", "rsh")  # terms of a functional written out as a sum
_DISPERSION = re.compile(r"(d2|d3|d3bj|d3zero|d4|vv10|nlc)$")


def has_exact_exchange(xc: str) -> bool:
    """Whether a functional, spelt as in PySCF ("pbe0", "0.2*hf + 0.8*b88, lyp"), is a hybrid."""
    terms = re.findall(r"[a-z][a-z0-9]*", re.sub("[-_]", "", xc.lower()))
    return any(_is_hybrid(term) or _is_hybrid(_DISPERSION.sub("", term)) for term in terms)


def _is_hybrid(term: str) -> bool:
    return term in _HYBRIDS or term in _EXACT_EXCHANGE or term.startswith("hyb")
