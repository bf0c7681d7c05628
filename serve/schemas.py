"""What clients send, as pydantic reads it; answers are written by hand, for speed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Item = Annotated[str, StringConstraints(strict=True)]
# The first wrong one is told: to tell half a million takes seconds and half a gigabyte.
Items = Annotated[list[Item], Field(fail_fast=True)]


class Body(BaseModel):
    """A body: unknown fields are left alone, as clients send many; null is as good as nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value is not None}
        return values


class Cut(Body):
    """How texts past the model's length are taken."""

    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = Field(
        "Right", description="texts are cut at their end"
    )


class EmbeddingsRequest(Body):
    """POST /v1/embeddings, as OpenAI has it, with two fields more."""

    input: Item | Items
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None
    output_dtype: Literal["float", "float32", "int8", "binary", "ubinary"] = Field(
        "float32",
        description="int8: scaled so that the largest value is 127; ubinary, binary: the signs, 8 a"
        " byte, as unsigned or (minus 128) signed bytes; not in base64",
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

    @model_validator(mode="after")
    def _floats_in_base64(self) -> "EmbeddingsRequest":
        small = self.output_dtype not in ("float", "float32")
        if small and self.encoding_format == "base64":
            raise ValueError(
                f"output_dtype {self.output_dtype!r} in base64: OpenAI's clients ask for base64"
                " unless told otherwise, and read float32 out of it: ask for encoding_format"
                " 'float'"
            )
        return self


class EmbedRequest(Cut):
    """POST /embed, as text-embeddings-inference has it."""

    inputs: Item | Items
    normalize: bool = True
    dimensions: int | None = Field(None, ge=1)
    prompt_name: str | None = None


class Compared(Body):
    """A sentence, and those that it is compared with."""

    source_sentence: Item
    sentences: Items = Field(min_length=1)


class SimilarityRequest(Body):
    """POST /similarity, as text-embeddings-inference has it."""

    inputs: Compared
    parameters: Cut = Cut()


class PredictRequest(Cut):
    """POST /predict: a text, a pair [a, b], or a batch [[a], [b]] or [[a, b], [c, d]]."""

    inputs: Item | Items | Annotated[list[Items], Field(fail_fast=True)]
    raw_scores: bool = False


class TokenizeRequest(Body):
    """POST /tokenize."""

    inputs: Item | Items
    add_special_tokens: bool = True


class TagRequest(Body):
    """POST /tag, in the shape of transformers' token-classification pipeline."""

    inputs: Item | Items


class Asked(Body):
    """A question, and the text that is to answer it."""

    question: Item
    context: Item


class AnswerRequest(Body):
    """POST /answer, in the shape of transformers' question-answering pipeline."""

    inputs: Asked | Annotated[list[Asked], Field(fail_fast=True)]


class InferInput(Body):
    """An input tensor of the Open Inference Protocol."""

    name: str
    shape: Annotated[list[int], Field(fail_fast=True)] = Field(max_length=2)
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
    outputs: Annotated[list[InferOutput], Field(fail_fast=True)] = []
