"""Media files: containers, decoding in a sandbox, resampling, log-mel, YUV. No torch here."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    clip="ClipSpec",
    decode="decode_clip decode_clips DecodedClip",
    probe="Status probe_file",
    container="MediaError MediaInfo",
    log_mel="clip_audio StreamingAudio",
)
