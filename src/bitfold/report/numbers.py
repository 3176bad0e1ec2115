"""Numbers for people."""


def size(count: float | None) -> str:
    """A number of bytes in the unit that suits it.

    Example:
        >>> size(850_944), size(None)
        ('831.0 KiB', '-')
    """
    from bitfold.planning.budget import (
        format_bytes,  # loads torch, which a table of numbers need not
    )

    return "-" if count is None else format_bytes(round(count))


def auc_text(value: float | None) -> str:
    """An AUC or a loss.

    Example:
        >>> auc_text(0.74814), auc_text(None)
        ('0.7481', '-')
    """
    return "-" if value is None else f"{value:.4f}"


def difference_text(value: float) -> str:
    """A difference with its sign.

    Example:
        >>> difference_text(0.0123), difference_text(-0.5)
        ('+0.0123', '−0.5000')
    """
    return f"{value:+.4f}".replace("-", "−")


def share_text(value: float | None) -> str:
    """A share as a percentage.

    Example:
        >>> share_text(0.9764), share_text(0.0004)
        ('97.6 %', 'under 0.1 %')
    """
    if value is None:
        return "-"
    return "under 0.1 %" if 0 < value < 0.0005 else f"{value * 100:.1f} %"


def byte_count(value: float | None) -> str:
    """A whole number of bytes.

    Example:
        >>> byte_count(359432.0)
        '359,432'
    """
    return "-" if value is None else f"{value:,.0f}"


def times(value: float | None) -> str:
    """A ratio.

    Example:
        >>> times(100.0138), times(1001.4)
        ('100.0x', '1,001x')
    """
    if value is None:
        return "-"
    return f"{value:,.1f}x" if value < 999.5 else f"{value:,.0f}x"
