"""Rules decide in order which initializer a parameter gets; a bad rule gives one sentence."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from numparam.entry import Entry
from numparam.indexing.region import Region
from numparam.initializer import HeNormal, TruncatedNormal
from numparam.rules import Glob, GlobIndex, RuleError, Rules
from numparam.rules.globs import Regex
from numparam.stream.source import Source

F32 = np.dtype(np.float32)


def chosen(rules: Rules, name: str, *shape: int) -> str:
    return str(rules.find(Entry(name, shape, F32)))


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        ("encoder.layer.0.attention.self.query.weight", (384, 384), "normal(sigma=0.02)"),
        ("encoder.layer.0.attention.self.query.bias", (384,), "zeros()"),
        ("encoder.layer.0.output.LayerNorm.weight", (384,), "ones()"),
        ("encoder.layer.0.output.LayerNorm.bias", (384,), "zeros()"),
        ("embeddings.LayerNorm.gamma", (384,), "ones()"),
        ("embeddings.LayerNorm.beta", (384,), "zeros()"),
        ("embeddings.word_embeddings.weight", (30522, 384), "normal(sigma=0.02)"),
        ("vision_model.embeddings.class_embedding", (768,), "normal(sigma=0.02)"),
        ("embeddings.position_ids", (1, 512), "arange()"),
        ("h.0.ln_1.weight", (768,), "ones()"),
        ("h.0.attn.c_attn.bias", (2304,), "zeros()"),
        ("h.0.attn.bias", (1, 1, 1024, 1024), "lower_triangle()"),
        ("h.0.attn.masked_bias", (), "constant(value=-10000.0)"),
        ("model.norm.weight", (4096,), "ones()"),
        ("layer1.0.conv1.weight", (64, 64, 3, 3), "he_normal(mode='fan_out', nonlinearity='relu')"),
        ("layer1.0.downsample.1.weight", (256,), "ones()"),
        ("bn1.running_mean", (64,), "zeros()"),
        ("bn1.running_var", (64,), "ones()"),
        ("bn1.num_batches_tracked", (), "zeros()"),
        ("lstm.bias_ih_l0", (64,), "zeros()"),
        ("rotary_emb.inv_freq", (64,), "None"),
        ("logit_scale", (), "None"),
    ],
)
def test_the_defaults_suit_common_models(name: str, shape: tuple[int, ...], expected: str) -> None:
    assert chosen(Rules.from_toml(""), name, *shape) == expected


def test_the_first_rule_that_matches_decides() -> None:
    rules = Rules.from_toml("""
        [[rules]]
        glob = ["head.*", "tail.*"]
        init = "zeros"
        [[rules]]
        regex = 'h.*\\.weight'
        min_ndim = 2
        max_ndim = 3
        init = "TruncatedNormal"
        sigma = 0.5
        a = -1
        b = 1.0
        [[rules]]
        glob = "h*"
        init = "ones"
    """)
    assert chosen(rules, "head.weight", 2, 2) == "zeros()"
    assert chosen(rules, "tail.x", 2) == "zeros()"
    assert chosen(rules, "hx.weight", 2, 2) == "TruncatedNormal(sigma=0.5, a=-1, b=1.0)"
    assert chosen(rules, "hx.weight", 2) == "ones()"
    assert chosen(rules, "hx.weight", 2, 2, 2, 2) == "ones()"
    assert chosen(rules, "xhx.weight", 2, 2) == "normal(sigma=0.02)"
    rule = rules.find(Entry("hx.weight", (2, 2), F32))
    assert rule is not None
    assert isinstance(rule.initializer, TruncatedNormal)
    assert (rule.initializer.sigma, rule.initializer.a, rule.initializer.b) == (0.5, -1.0, 1.0)


def test_patterns_match_the_whole_name_and_its_case() -> None:
    rules = Rules.from_toml("""
        defaults = false
        [[rules]]
        regex = 'a|ab'
        init = "zeros"
        [[rules]]
        glob = "X?"
        init = "ones"
    """)
    assert chosen(rules, "ab") == "zeros()"
    assert chosen(rules, "abc") == "None"
    assert chosen(rules, "XY") == "ones()"
    assert chosen(rules, "xy") == "None"
    assert chosen(rules, "XY\n") == "None"


def test_the_record_gives_the_same_rules_and_has_one_spelling() -> None:
    text = '[[rules]]\nsigma = 0.1\ninit = "normal"\nglob = "*"'
    turned = '[[rules]]\nglob = "*"\ninit = "normal"\nsigma = 0.1'
    rules = Rules.from_toml(text)
    assert rules.to_json() == Rules.from_toml(turned).to_json()
    assert rules.to_json().startswith('[{"glob":"*","init":"normal","sigma":0.1},{"glob":"*position_ids"')
    again = Rules.from_json(rules.to_json(), "record")
    assert again.to_json() == rules.to_json()
    assert chosen(again, "x") == "normal(sigma=0.1)"


def test_a_parameter_that_no_rule_covers_is_named() -> None:
    entries = [Entry("w.weight", (2, 2), F32), Entry("logit_scale", (), F32), Entry("t", (), F32)]
    with pytest.raises(RuleError) as caught:
        Rules.from_toml("").assign(entries)
    assert str(caught.value) == (
        "no rule initialises parameter 'logit_scale' of shape () (and 1 more); "
        'add one to --rules, such as [[rules]] glob = "logit_scale" init = "zeros"'
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[rules]", "rules: not TOML: "),
        ("rules = 3", "rules: expected [[rules]] tables and perhaps defaults = false, found rules"),
        ("[[rule]]", "rules: expected [[rules]] tables and perhaps defaults = false, found rule"),
        ("defaults = 1", "rules: expected [[rules]] tables and perhaps defaults = false, found defaults"),
        ("rules = [3]", 'rules: rule 1: a rule is a table with an init, such as init = "zeros"; found 3'),
        ('[[rules]]\nglob = "x"', "rules: rule 1: a rule is a table with an init"),
        ('[[rules]]\ninit = "zeros"\n[[rules]]\ninit = "nromal"', "rules: rule 2: no initializer is called 'nromal'"),
        (
            '[[rules]]\ninit = "normal"\nsgima = 1',
            "rules: rule 1: 'normal' takes sigma, mean, not 'sgima'",
        ),
        ('[[rules]]\ninit = "arange"\nstep = 1', "rules: rule 1: 'arange' takes no arguments, not 'step'"),
        ('[[rules]]\ninit = "normal"\nsigma = -1', "rules: rule 1: sigma is a finite number of at least 0, found -1"),
        ('[[rules]]\ninit = "normal"\nsigma = "x"', "rules: rule 1: sigma is a number, found 'x' of type str"),
        ('[[rules]]\ninit = "sparse"', "rules: rule 1: "),
        ('[[rules]]\nregex = "("\ninit = "ones"', "rules: rule 1: '(' is not a regular expression: missing ), "),
        ('[[rules]]\nregex = 1\ninit = "ones"', "rules: rule 1: regex must be text, found 1"),
        ('[[rules]]\nglob = []\ninit = "ones"', "rules: rule 1: glob must be text or a list of texts, found []"),
        ('[[rules]]\nglob = "a"\nregex = "a"\ninit = "ones"', "rules: rule 1: a rule has a glob or a regex, not both"),
        ('[[rules]]\nmin_ndim = true\ninit = "ones"', "rules: rule 1: min_ndim must be an integer, found True"),
    ],
)
def test_a_bad_rule_gives_one_sentence(text: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        Rules.from_toml(text)
    assert str(caught.value).startswith(message)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RuleError, match=r"rules\.toml: not TOML: 'utf-8' codec"):
        Rules.from_file(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[[[", "[" * 100_000])
def test_a_bad_record_gives_one_sentence(text: str) -> None:
    with pytest.raises(RuleError, match=r"^record: "):
        Rules.from_json(text, "record")


@pytest.mark.parametrize(
    "init, whole",
    [
        ("arange", np.broadcast_to(np.arange(7), (2, 5, 7))),
        ("lower_triangle", np.broadcast_to(np.tri(5, 7), (2, 5, 7))),
    ],
)
def test_buffers_are_functions_of_the_index(init: str, whole: np.ndarray) -> None:
    rules = Rules.from_toml(f'[[rules]]\ninit = "{init}"')
    initializer = rules.rules[0].initializer
    for dtype in (np.int64, np.float32, np.uint8):
        for index in (..., np.s_[1:, ::-2, 3:5], np.s_[0, 1:3], np.s_[:, 4, ::3]):
            region = Region.full(whole.shape)[index]
            out = np.empty(region.shape, dtype)
            initializer.fill(out, region, Source(0, "x"))
            np.testing.assert_array_equal(out, whole[index])


def test_convolutions_get_he_normal_by_their_outputs() -> None:
    rule = Rules.from_toml("").find(Entry("conv.weight", (8, 4, 3, 3), F32))
    assert rule is not None
    assert isinstance(rule.initializer, HeNormal)
    assert rule.initializer.mode == "fan_out"


PATTERNS = [
    *("a|ab", "(a+)+b", r"(.*\.)?(attn|attention)\.(bias|causal_mask)", r"layers\.\d+\.mlp\..*", "[^a-c]+", "a{2,3}b?"),
    *("(?i)AbC.*", r"\w+\s?\d*", "^a.*b$", "a*?b+?", "(?=a)[ab]*", "(?!.*c)[abc]*", "[ab]*(?<=b)c", r"\bab\b.*"),
    *("(|a)+b", "((ab)*|c){2}", r"[\W\d]+", "a.c", "(?s).*", "x{0}", "(a{0,2}){0,2}", r".*\Ba\Z"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_both_ways_to_match_a_regex_agree_with_re(pattern: str) -> None:
    random = np.random.default_rng(5)
    ours, theirs = Regex(pattern), re.compile(pattern)
    names = ["".join(random.choice(list("aabbc.1 _\nA"), random.integers(9))) for _ in range(300)]
    for name in [*names, "layers.0.mlp.w", "h.0.attn.bias", "attn.bias", "ABCx"]:
        expected = theirs.fullmatch(name) is not None
        assert (ours.matches(name), ours._slowly(name)) == (expected, expected), name


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|aa)+b", "(.*)" * 50 + "x", "(((((a*)*)*)*)*)*b", "(a?){1000}(a?){1000}b", "((a{1,9}){1,9}){1,9}b"],
)
def test_a_regex_that_backtracks_ends(pattern: str) -> None:
    record = json.dumps([{"regex": pattern, "init": "zeros"}])
    try:
        assert chosen(Rules.from_json(record, "record"), "a" * 1000 + "c", 2) == "None"
    except RuleError as error:
        assert re.fullmatch("'.*' takes too much work for the name 'aaa.{,80}", str(error))  # noqa: PT017


@pytest.mark.parametrize(
    "pattern, words",
    [
        (r"(a)\1", "groupref needs backtracking"),
        ("(?>a)b", "atomic_group needs backtracking"),
        ("a++", "possessive_repeat needs backtracking"),
        ("[[a]", "Possible nested set"),
        ("a" * 5000, "at most 4096 characters, found 5000"),
        ("(" * 2000 + ")" * 2000, "is not a regular expression"),
    ],
    ids=lambda value: value[:9],
)
def test_regexes_that_are_refused(pattern: str, words: str) -> None:
    with pytest.raises(RuleError, match=words) as caught:
        Rules.from_json(json.dumps([{"regex": pattern, "init": "zeros"}]), "record")
    assert len(str(caught.value)) < 300


def test_the_number_of_rules_is_bounded() -> None:
    with pytest.raises(RuleError, match="at most 1000 rules, found 1001"):
        Rules.from_json(json.dumps([{"init": "zeros"}] * 1001), "record")


def test_the_index_of_globs_leaves_out_none_that_matches() -> None:
    globs = ["*", "a", "a.b", "a.*", "*.b", "a.*b", "a?b", "[ab].b", "a.[b", "[!a]*b]", "*]", "a.b*", "?", ""]
    index = GlobIndex(globs)
    for name in ["", "a", "b", "a.b", "a.b.b", "axb", "a.[b", "b.b]", "a.]", "b", "aa.b", "a.bb"]:
        matching = [place for place, glob in enumerate(globs) if Glob([glob]).matches(name)]
        assert [place for place in index.find(name) if Glob([globs[place]]).matches(name)] == matching, name
    assert not {1, 2, 3, 4} & set(index.find("b.x"))
    globs = ["*.a.*", "*.a.b.*c", "?.b.?", "*.a*.b.*", "*a.*", "*.[a].b.*", "*..*", "*.a.*.b.*"]
    index = GlobIndex(globs)
    for name in ["x.a.y", "x.a.b.y.c", "x.b.y", "x.ab.b.c", "a.", "x..y", "x.a.b.b.y", "b.b.b", "", "x.a.c.b.d"]:
        matching = [place for place, glob in enumerate(globs) if Glob([glob]).matches(name)]
        assert [place for place in index.find(name) if Glob([globs[place]]).matches(name)] == matching, name
    assert index.find("x.y.z") == [4, 5]
    assert GlobIndex([["*.a.*", "b.*"], "*.c"]).find("b.a.a.c") == [0, 1]
