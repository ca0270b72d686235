"""The language of the embedded world: the facts a post can state and the sentences that can state them.

A record gives one value to every slot in `SLOTS`. Authors write summaries from the clauses below, and the gold judge
reads a summary back with the very same clauses, so that what it calls grammatical is what the world can say.
"""

SLOTS = ("relation", "verb", "object", "time", "feeling", "wish")

VALUES = {
    "relation": (
        "sister brother mother father cousin uncle aunt roommate neighbor boss coworker landlord boyfriend girlfriend "
        "wife husband teacher trainer nephew niece stepdad grandma tenant ex"
    ).split(),
    "verb": (
        "broke stole sold lost borrowed hid painted burned damaged returned opened moved wrecked copied cleaned "
        "pawned mailed scratched soaked dropped"
    ).split(),
    "object": (
        "laptop guitar car bike camera phone couch jacket ring watch passport notebook tent piano kettle mirror "
        "telescope suitcase skateboard necklace painting drone helmet blender printer violin carpet lamp canoe "
        "microscope backpack wallet tablet scooter trophy diary oven statue quilt radio"
    ).split(),
    "time": (
        "last night|yesterday|on monday|on tuesday|on friday|on sunday|this morning|last weekend|last month|last week|"
        "two days ago|in march|in june|in october|on christmas|over lunch|during finals|after the party|before work|"
        "on my birthday"
    ).split("|"),
    "feeling": (
        "angry sad betrayed confused guilty anxious lonely furious embarrassed exhausted hurt jealous nervous ashamed "
        "disappointed numb hopeless annoyed shocked bitter worried ignored afraid upset"
    ).split(),
    "wish": (
        "an apology|a refund|my money back|some space|a fresh start|legal advice|a new lock|a straight answer|"
        "a quiet talk|a second chance|a replacement|a new place|a long break|a witness|some peace|a fair deal|"
        "a clean cut|a lawyer|some respect|an honest reason"
    ).split("|"),
}

# Clauses of a summary. A slot an author leaves out is written with the vague word in its place.
VAGUE = {"relation": "someone", "verb": "messed with", "object": "my stuff"}
EVENT_CLAUSES = (
    "{who} {did} {what}",
    "{who} {did} {what} {time}",
    "{time} {who} {did} {what}",
    "so {who} {did} {what}",
    "so {who} {did} {what} {time}",
)
FEELING_CLAUSES = ("i feel {feeling}", "i am {feeling}", "now i feel {feeling}", "i am so {feeling} about it")
WISH_CLAUSES = ("i want {wish}", "i would like {wish}", "all i want is {wish}", "i think i need {wish}")
FILLER_CLAUSES = (
    "long story short",
    "sorry for the rant",
    "thanks for reading",
    "any advice is welcome",
    "it is a whole mess",
    "you can not make this up",
    "this is kind of long",
    "i could go on forever",
    "just read the post",
    "that is pretty much it",
    "there is a lot more to it",
    "i know how it sounds",
)
