"""What clients send, as pydantic reads it; answers are written by hand, for speed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Item = Annotated[str, StringConstraints(strict=True)]


class Body(BaseModel):
    """A body: unknown fields are left alone, as clients send many."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class EmbeddingsRequest(Body):
    """POST /v1/embeddings, as OpenAI has it, with two fields more."""

    input: Item | list[Item]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None
    output_dtype: Literal["float", "float32", "int8", "binary", "ubinary"] = Field(
        "float32",
        description="int8: scaled so that the largest value is 127; ubinary, binary: the signs, 8 a"
        " byte, as unsigned or (minus 128) signed bytes",
    )
    partial: bool = Field(
        False, description="a text that is refused becomes an object `error` in `data`"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_token_ids(cls, values: Any) -> Any:
        if isinstance(values, dict):
            given = values.get("input")
            first = given[0] if isinstance(given, list) and given else None
            if isinstance(first, int | list) and not isinstance(first, bool):
                raise ValueError(
                    "input: token ids belong to the tokenizer of another model and would give"
                    " wrong vectors: send strings (LangChain: check_embedding_ctx_length=False)"
                )
        return values


class EmbedRequest(Body):
    """POST /embed, as text-embeddings-inference has it."""

    inputs: Item | list[Item]
    normalize: bool = True
    truncate: bool | None = None
    dimensions: int | None = Field(None, ge=1)
    prompt_name: str | None = None


class Compared(Body):
    """A sentence, and those that it is compared with."""

    source_sentence: Item
    sentences: list[Item] = Field(min_length=1)


class SimilarityParameters(Body):
    """How texts past the model's length are taken."""

    truncate: bool | None = None


class SimilarityRequest(Body):
    """POST /similarity, as text-embeddings-inference has it."""

    inputs: Compared
    parameters: SimilarityParameters = SimilarityParameters()


class PredictRequest(Body):
    """POST /predict: a text, a pair [a, b], or a batch [[a], [b]] or [[a, b], [c, d]]."""

    inputs: Item | list[Item] | list[list[Item]]
    raw_scores: bool = False
    truncate: bool | None = None


class TokenizeRequest(Body):
    """POST /tokenize."""

    inputs: Item | list[Item]
    add_special_tokens: bool = True


class TagRequest(Body):
    """POST /tag, in the shape of transformers' token-classification pipeline."""

    inputs: Item | list[Item]


class Asked(Body):
    """A question, and the text that is to answer it."""

    question: Item
    context: Item


class AnswerRequest(Body):
    """POST /answer, in the shape of transformers' question-answering pipeline."""

    inputs: Asked | list[Asked]


class InferInput(Body):
    """An input tensor of the Open Inference Protocol."""

    name: str
    shape: list[int] = Field(max_length=2)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferOutput(Body):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(Body):
    """POST /v2/models/NAME/infer."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] = []
