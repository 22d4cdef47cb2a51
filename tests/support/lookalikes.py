"""Values of a user's that look like what the package writes: handles, references, literals."""

from __future__ import annotations

from hypothesis import strategies as st

DIGEST = "0123456789abcdef0123456789abcdef"

KEYS = ("$held", "$ref", "$literal", "path", "length", "lengths", "bytes", "type", "begins", "free")
TEXTS = ("$1", "$1.free", "${1}", "${}", "$$", "$held", DIGEST, "x")
LOOKALIKES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        | st.sampled_from(["$held", "$ref", "$literal"]).flatmap(
            lambda key: st.fixed_dictionaries({key: inner})
        )
    ),
    max_leaves=8,
)
