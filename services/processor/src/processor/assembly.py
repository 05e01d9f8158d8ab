"""The processor's pure parts, made as its settings say: alike in the processor and where its state is rebuilt."""

from processor.numbers import Numbers
from processor.settings import ProcessorSettings
from sales.board import Keys
from sales.columnar.decoding import Decoder, Secrets
from sales.countries import region_table
from sales.events import Log

log = Log(__name__)


def decoder(settings: ProcessorSettings, seed: int) -> Decoder:
    """A decoder, compiled where it may be and can be.

    Args:
        settings: the processor's.
        seed: secret of the identities' hashes, the recovery directory's.
    """
    secrets = Secrets.of(seed)
    if settings.decoder == "plain":
        return Decoder(settings.rules(), secrets, compiled=False)
    made = Decoder(settings.rules(), secrets)
    if not made.compiled:
        log.warning(
            "decoder_not_compiled",
            "numba is not installed: orders are decoded without compiled code, which is much slower",
        )
    return made


def numbers(settings: ProcessorSettings) -> Numbers:
    """Numbers that know of nothing yet."""
    return Numbers(
        windows=settings.windows,
        keys=Keys(settings.redis_prefix),
        top_k=settings.top_k,
        currency=settings.currency,
        region_of=region_table(settings.region_overrides),
        clock=settings.clock,
    )
