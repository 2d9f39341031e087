"""The data sets there are recipes for: what each has, under which terms, where to ask, how many, what was published.

Counts, terms and numbers are as their publishers print them; a number that could not be read there is not here.
"""

from __future__ import annotations

from affuse.config import nearest
from affuse.errors import UsageError
from affuse.pipelines.aff_wild2.recipe import AFF_WILD2
from affuse.pipelines.recipes.continuous import afew_va, omg_empathy, recola, sewa
from affuse.pipelines.recipes.dataset import About, Published, Recipe
from affuse.pipelines.recipes.utterances import MOSEI, VAD, iemocap, mosei, msp_improv, msp_podcast, omg_emotion

UNIT, FIVE, SEVEN = (-1.0, 1.0), (1.0, 5.0), (1.0, 7.0)
AVEC_2018 = "README of AudioVisualEmotionChallenge/AVEC2018"
OMG_EMOTION = "README of knowledgetechnologyuhh/OMGEmotionChallenge"
OMG_EMPATHY = "README of knowledgetechnologyuhh/OMGEmpathyChallenge"
UT_DALLAS = "https://ecs.utdallas.edu/research/researchlabs/msp-lab"


def _va(valence: float, arousal: float) -> dict[str, float]:
    return {"valence": valence, "arousal": arousal}


RECIPES: dict[str, About] = {
    recipe.name: recipe
    for recipe in (
        AFF_WILD2,
        Recipe(
            "recola", "RECOLA", "video calls in French, 5 minutes each; six raters, 25 Hz",
            "with the request", "https://diuf.unifr.ch/main/diva/recola/download.html",
            dict.fromkeys(("valence", "arousal"), UNIT), recola,
            {"train": 9, "validation": 9, "recordings": 23},
            published=(
                Published("AVEC 2016 baseline", "test", _va(0.638, 0.702), "Brady et al. 2016, abstract"),
                Published("Brady et al.", "test", _va(0.687, 0.770), "Brady et al. 2016, abstract"),
                Published("Povolny et al.", "validation", _va(0.713, 0.855), "Povolny et al. 2016, abstract"),
                Published("Povolny et al.", "test", _va(0.596, 0.719), "Povolny et al. 2016, abstract"),
            ),
        ),
        Recipe(
            "sewa", "SEWA (AVEC 2017–2019)", "video chats, German and Hungarian; gold standard, 10 Hz",
            "with the request", "https://db.sewaproject.eu",
            dict.fromkeys(("valence", "arousal", "liking"), UNIT), sewa,
            {"train": 68, "validation": 28},
            published=(
                Published(
                    "AVEC 2018 baseline", "German validation", {**_va(0.563, 0.552), "liking": 0.238}, AVEC_2018
                ),
            ),
        ),
        Recipe(
            "omg-emotion", "OMG-Emotion", "monologues of YouTube; gold standard of each utterance",
            "CC BY-NC-SA 3.0 DE", "https://github.com/knowledgetechnologyuhh/OMGEmotionChallenge",
            dict.fromkeys(("valence", "arousal"), UNIT), omg_emotion, {},
            published=(Published("baseline, vision", "validation", _va(0.27, 0.13), OMG_EMOTION),),
        ),
        Recipe(
            "omg-empathy", "OMG-Empathy", "ten listeners of eight stories each; valence of their own, 25 Hz",
            "CC BY-NC-SA 3.0 DE", "https://github.com/knowledgetechnologyuhh/OMGEmpathyChallenge",
            {"valence": UNIT}, omg_empathy,
            {"train": 40, "validation": 10, "subjects": 10}, target=("valence",),
            published=(
                Published("baseline, listener", "validation, mean of subjects", {"valence": 0.091}, OMG_EMPATHY),
                Published("baseline, listener", "validation, mean of stories", {"valence": 0.111}, OMG_EMPATHY),
            ),
        ),
        Recipe(
            "afew-va", "AFEW-VA", "600 clips of films as pictures; a rating of every frame",
            "with the download", "https://ibug.doc.ic.ac.uk/resources/afew-va-database/",
            dict.fromkeys(("valence", "arousal"), (-10.0, 10.0)), afew_va,
            {"recordings": 600}, modalities=("visual",), pictures=True,
        ),
        Recipe(
            "iemocap", "IEMOCAP", "ten actors in dialogue, films; each turn by two raters or more",
            "release form", "https://sail.usc.edu/iemocap/iemocap_release.htm",
            dict.fromkeys(VAD, FIVE), iemocap, {"subjects": 10, "utterances": 10039},
        ),
        Recipe(
            "msp-improv", "MSP-IMPROV", "twelve actors improvising, a film of each turn; many raters",
            "form of UT Dallas", f"{UT_DALLAS}/MSP-Improv.html",
            dict.fromkeys(VAD, FIVE), msp_improv, {"subjects": 12, "utterances": 8438},
        ),
        Recipe(
            "msp-podcast", "MSP-Podcast (1.11)", "turns of podcasts, sound only; five raters or more",
            "form of UT Dallas", f"{UT_DALLAS}/MSP-Podcast.html",
            dict.fromkeys(VAD, SEVEN), msp_podcast,
            {"utterances": 84030 + 19815 + 30647}, modalities=("audio", "text"),
        ),
        Recipe(
            "cmu-mosei", "CMU-MOSEI", "opinions on YouTube; sentiment and six emotions of each sentence",
            "with the download", "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
            dict.fromkeys(MOSEI, (0.0, 3.0)) | {"sentiment": (-3.0, 3.0)}, mosei,
            {"train": 2249, "validation": 300, "test": 678}, target=("sentiment",),
        ),
    )
}  # fmt: skip


def named(name: str) -> About:
    """Raises UsageError for an unknown name, with the nearest known one."""
    if name not in RECIPES:
        raise UsageError(f"Unknown data set {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]


def facts() -> list[dict[str, str]]:
    """Of every data set what a person wants to know first."""
    return [
        {"name": one.name, "title": one.title, "has": one.has, "licence": one.licence, "ask": one.ask}
        for one in RECIPES.values()
    ]
