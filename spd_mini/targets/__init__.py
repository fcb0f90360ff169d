"""Toy models whose mechanisms are known: module, data, training and presets, one file each."""

from . import circuits, facts, redundant, resid_mlp, tms

AnyPreset = tms.Preset | resid_mlp.Preset

PUBLISHED: dict[str, AnyPreset] = {
    preset.name: preset
    for preset in (
        tms.TMS_5_2,
        tms.TMS_5_2_ID,
        tms.TMS_40_10,
        tms.TMS_40_10_ID,
        resid_mlp.RESID_MLP_1,
        resid_mlp.RESID_MLP_2,
        resid_mlp.RESID_MLP_3,
    )
}
"""The paper's experiments: the ledger repeats them."""

EXPERIMENTS: dict[str, AnyPreset | facts.Preset | redundant.Preset] = {
    **PUBLISHED,
    **{p.name: p for p in (facts.FACTS, facts.FACTS_SUPERPOSED, facts.FACTS_REDUNDANT)},
    **{p.name: p for p in (redundant.REDUNDANT, redundant.REDUNDANT_BOTH)},
    **{p.name: p for p in (circuits.CIRCUITS, circuits.CIRCUITS_PAIRED, circuits.CIRCUITS_MANY)},
}
"""Presets by the name that the command line knows."""
