"""A stand-in for an embedding model: one axis per word, so that what is near is known beforehand."""

WORDS = ("cat", "dog", "car", "sun")
TEXTS = ("cat cat", "cat dog", "dog dog dog", "car sun", "sun")
ABOUT = [{"animal": "cat" in text or "dog" in text, "length": len(text)} for text in TEXTS]


def embed(text: str) -> list[float]:
    """Count the known words; the last number keeps a text of unknown words from being a zero vector."""
    counted = [float(text.split().count(word)) for word in WORDS]
    return [*counted, 0.125]
