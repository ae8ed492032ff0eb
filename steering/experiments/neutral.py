"""Texts about nothing in particular: what steering does to them, it does to everything."""

NEUTRAL = (
    "The library opens at nine in the morning and closes at six. On Saturdays it closes at noon.",
    "To make bread you need flour, water, salt and yeast. Mix them, let the dough rise, and bake it for forty minutes.",
    "The river begins in the mountains, passes three towns, and reaches the sea after two hundred kilometres.",
    "A triangle has three sides, and its angles add up to one hundred and eighty degrees.",
    "The train from the coast was ten minutes late, so most of the passengers read or looked out of the window.",
    "In spring the farmers sow wheat and barley; in late summer they bring in the harvest.",
    "Water boils at one hundred degrees at sea level, and at a lower temperature on a mountain.",
    "The museum has a collection of old maps, some of which were drawn more than four hundred years ago.",
    "She put the letter into the drawer, locked it, and went downstairs to make some tea.",
    "A bicycle chain should be cleaned and oiled every few hundred kilometres, more often in the rain.",
    "The committee met on Tuesday, read the minutes of the last meeting, and agreed on a date for the next.",
    "Most birds build their nests in spring. Some use twigs and moss, others mud or the holes of old trees.",
)
