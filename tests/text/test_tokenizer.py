import json
import subprocess
import sys
from functools import cache
from importlib import resources
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.architectures import TEXT_LENGTH
from dynamicrafter.errors import InputError
from dynamicrafter.text.tokenizer import END_TOKEN, START_TOKEN, tokenize
from goldens import GOLDEN

CASES = json.loads((GOLDEN / "tokens.json").read_text(encoding="utf-8"))
any_text = st.text(st.characters(exclude_categories=()), max_size=120)  # lone surrogates too


def ids(prompt: str) -> list[int]:
    return tokenize([prompt]).ids[0].tolist()


def text_ids(prompt: str) -> list[int]:
    row = ids(prompt)
    return row[1 : len(row) - row[::-1].index(END_TOKEN) - 1]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_tokens_equal_the_published_ones(case):
    assert ids(case["prompt"]) == case["tokens"]


def test_a_batch_gives_each_prompt_the_tokens_it_has_alone():
    batch = tokenize([case["prompt"] for case in CASES])
    assert batch.ids.shape == (len(CASES), TEXT_LENGTH)
    assert batch.ids.dtype == torch.int64
    assert batch.ids.tolist() == [case["tokens"] for case in CASES]


def test_no_prompts_give_an_empty_batch():
    assert tokenize([]).ids.shape == (0, TEXT_LENGTH)
    assert tokenize([]).cut == ()


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_any_text_gives_start_text_end_and_zeros(prompt):
    row = ids(prompt)
    assert len(row) == TEXT_LENGTH
    assert row[0] == START_TOKEN
    end = len(row) - 1 - row[::-1].index(END_TOKEN)
    assert not any(row[end + 1 :])
    assert all(0 <= token <= END_TOKEN for token in row)


# Without "&", as names of HTML entities do have a case.
@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127, exclude_characters="&"), max_size=60))
def test_upper_and_lower_case_are_the_same(prompt):
    assert ids(prompt.lower()) == ids(prompt.upper()) == ids(prompt)


def test_upper_and_lower_case_are_the_same_beyond_ascii():
    assert ids("ÉCOLE КОШКА ΔΈΛΤΑ") == ids("école кошка δέλτα")


@cache
def merge_ranks() -> dict[tuple[str, str], int]:
    lines = (resources.files("dynamicrafter.text") / "clip_merges.txt").read_text(encoding="utf-8").splitlines()
    return {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}


def merged_by_hand(word: str) -> list[str]:
    """Byte-pair encoding of an ASCII word from its definition: join the first pair of the list while there is one."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in pairwise(parts) if pair in merge_ranks()]:
        best = min(pairs, key=merge_ranks().__getitem__)
        joined = []
        while parts:
            width = 2 if tuple(parts[:2]) == best else 1
            joined.append("".join(parts[:width]))
            parts = parts[width:]
        parts = joined
    return parts


@settings(max_examples=150, deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20))
def test_words_are_merged_as_the_definition_says(word):
    ascii_order = {chr(code): code - 33 for code in range(33, 127)}
    symbols = {**ascii_order, **{letter + "</w>": 256 + place for letter, place in ascii_order.items()}}
    vocabulary = symbols | {"".join(pair): 512 + rank for pair, rank in merge_ranks().items()}
    assert text_ids(word) == [vocabulary[part] for part in merged_by_hand(word)]


def test_the_list_of_merges_fills_the_vocabulary_up_to_the_start_token():
    assert 512 + len(merge_ranks()) == START_TOKEN


def test_only_the_two_literals_become_start_and_end_tokens():
    assert text_ids("<start_of_text>")[0] == START_TOKEN
    assert ids("<END_OF_TEXT>")[1] == END_TOKEN
    assert START_TOKEN not in text_ids("<|startoftext|>")
    assert END_TOKEN not in text_ids("<|endoftext|>")


def test_html_is_unescaped_twice_even_where_ftfy_leaves_it():
    # ftfy takes a text with "<" for HTML and leaves its entities.
    assert ids("a < b &amp;amp; c") == ids("a < b & c")


def test_exclamation_marks_are_text_and_not_padding():
    assert ids("!") == [START_TOKEN, 256, END_TOKEN] + [0] * 74


def test_75_tokens_fit_whole():
    full = tokenize([" ".join(["boat"] * 75)])
    assert full.cut == (None,)
    assert full.ids[0].tolist() == [START_TOKEN, *[4440] * 75, END_TOKEN]


def test_what_does_not_fit_is_reported_in_the_users_own_words():
    result = tokenize(["a boat", "boat " * 74 + "Sea,  then À la   Carte &amp; more"])
    assert result.cut == (None, ", then À la Carte & more")
    assert result.ids[1, -1] == END_TOKEN
    assert result.ids[1, 75] == text_ids("sea")[0]


def test_a_word_that_is_cut_in_its_middle_is_reported_whole():
    pieces = text_ids("supercalifragilisticexpialidocious")
    assert len(pieces) > 2
    result = tokenize(["boat " * 74 + "Supercalifragilisticexpialidocious"])
    assert result.cut == ("Supercalifragilisticexpialidocious",)
    assert result.ids[0, 75] == pieces[0]
    assert result.ids[0, 76] == END_TOKEN


def test_letters_that_grow_when_lower_cased_do_not_shift_the_report():
    # "İ" becomes two characters in lower case, and one token for its "i" and one for its dot.
    assert len(text_ids("İ")) == 2
    assert tokenize(["İ" * 3 + " boat" * 69 + " The Rest"]).cut == ("The Rest",)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcXYZ é0.", min_size=1, max_size=9), min_size=40, max_size=120))
def test_the_report_is_the_tail_of_the_prompt(words):
    prompt = " ".join(" ".join(words).split())
    cut = tokenize([prompt]).cut[0]
    assert cut is None or (cut and prompt.endswith(cut))


def test_one_string_instead_of_a_list_is_refused():
    with pytest.raises(InputError, match=r"prompts must be a list of strings, got the single string 'a boat'"):
        tokenize("a boat")


@pytest.mark.parametrize("wrong", [None, 3, b"a boat"])
def test_a_prompt_that_is_no_string_is_refused(wrong):
    with pytest.raises(InputError, match=r"prompts\[1\] must be a string, got "):
        tokenize(["a boat", wrong])


def test_importing_the_tokenizer_loads_neither_torch_nor_transformers():
    code = "import sys, dynamicrafter.text.tokenizer; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_shorter_text_encoder_gets_as_many_tokens_as_it_reads():
    short = tokenize(["a cat", "one two three four five six seven"], length=8)
    whole = tokenize(["a cat", "one two three four five six seven"])
    assert short.ids.shape == (2, 8)
    assert short.ids[0].tolist() == whole.ids[0, :8].tolist()
    assert short.ids[1].tolist() == [*whole.ids[1, :7].tolist(), 49407]
    assert short.cut == (None, "seven")
