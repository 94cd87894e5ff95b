"""Text whose words cannot be found by spaces alone is recognized by its script."""

import pytest

from models.evaluation.error_analysis import words
from models.text.scripts import dense_script


@pytest.mark.parametrize(
    "text, script",
    [
        ("我有一只猫。", "Chinese"),
        ("我 有 一只 猫", "Chinese"),
        ("我用 Python 写代码", "Chinese"),
        ("漢字かな交じり文", "Japanese"),
        ("カタカナ", "Japanese"),
        ("ｶﾀｶﾅ", "Japanese"),
        ("고양이가 있다.", "Korean"),
        ("ฉันมีแมว", "Thai"),
        ("ຂ້ອຍມີແມວ", "Lao"),
        ("ང་ལ་ཞི་མི་ཞིག་ཡོད།", "Tibetan"),
        ("ကျွန်တော့်မှာ ကြောင်ရှိတယ်", "Burmese"),
        ("ខ្ញុំមានឆ្មា", "Khmer"),
        ("I have a cat.", ""),
        ("In Chinese, a cat is called 猫.", ""),
        ("У меня есть кошка.", ""),
        ("मेरे पास एक बिल्ली है।", ""),
        ("لدي قطة", ""),
        ("123 ?!", ""),
        ("", ""),
    ],
)
def test_a_text_is_recognized(text, script):
    assert dense_script([text]) == script
    assert dense_script(["", text]) == script


def test_no_text_has_no_script():
    assert dense_script([]) == ""


def test_each_character_of_a_script_without_spaces_is_a_word():
    assert words("我有 a cat") == ["我", "有", "a", "cat"]
    assert len(words("ฉันมีแมว")) == 8 and words("고양이가 있다") == ["고양이가", "있다"]
