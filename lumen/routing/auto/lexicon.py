"""Words that give a request's subject away: a little knowledge that no label has to pay for.

Written by hand from general knowledge; which subject is hard for which target is for the labels to say.
"""

from __future__ import annotations

SUBJECTS: dict[str, str] = {
    "chemistry": """
        acid acids alkane alkene atom atomic atoms base bases benzene boiling bond bonding bonds carbon catalyst
        chemical chemistry chloride co2 compound compounds electrode electrolysis electron electrons element
        elements enthalpy entropy equilibrium ester freezing gas gibbs h2o h2so4 hcl hydrogen hydroxide ion
        ionic ions isotope ketone ksp mol molar molarity mole molecular molecule molecules moles naoh nh3
        nitrogen orbital oxidation oxidized oxygen ph pka polymer precipitate product reactant reactants
        reaction reactions reduction sodium solubility solute solution solvent stoichiometry sulfate titration
        yield
    """,
    "physics": """
        acceleration angular capacitor charge charged circuit collision coulomb current diffraction electric
        electron energy field force forces frequency friction gravitational gravity heat inductance inertia
        joule kinetic lens light magnetic mass mirror momentum newton optics orbit oscillation particle pendulum
        photon planet potential pressure projectile quantum refraction relativity resistance rotating speed
        spring temperature tesla thermodynamic torque velocity voltage watt wave wavelength waves
    """,
    "engineering": """
        amperes amplifier antenna armature bandwidth beam bearing bending boiler bolt boundary btu column
        compressor conduction convection cylinder diode exchanger filter flow fluid ft gear generator horsepower
        hp hr impedance insulation lbm load modulation motor nozzle ohms phase pipe piston psi psia pump rankine
        refrigerant reynolds rotor rpm shaft shear signal stator steam steel strain stress synchronous
        transformer transistor truss turbine viscosity volts weld winding
    """,
    "mathematics": """
        abelian angle bijection circle combinations combinatorics complex continuous convergence coordinates cos
        derivative determinant differentiable distribution divisible eigenvalue equation equations field frac
        function functions graph group homomorphism integer integers integral limit log matrices matrix modulo
        permutations plane polynomial prime probability prove radius random real ring root roots sequence series
        set sin sqrt subgroup subset tan theorem triangle variance vector vectors
    """,
    "biology": """
        allele alleles animal animals bacteria blood cell cells chromosome chromosomes dna dominant ecosystem
        embryo enzyme enzymes evolution gene genes genetic genotype hormone meiosis membrane mitochondria
        mitosis mutation natural neuron offspring organism organisms phenotype photosynthesis plant plants
        population protein proteins recessive respiration rna selection species tissue virus
    """,
    "medicine": """
        acute antibiotic artery bilateral cancer cardiac chronic clinical diagnosis disease dose drug drugs
        examination fever hepatic history hospital infection lesion medication mg muscle nerve old pain patient
        patients physician pressure renal serum surgery symptoms syndrome therapy treatment tumor vitamin year
    """,
    "psychology": """
        anxiety attachment attitudes behavior behavioral child children client cognitive conditioning depression
        development disorder emotion freud intelligence learning memory motivation perception personality
        psychologist psychology reinforcement self social stereotype stimulus therapist therapy
    """,
    "economics": """
        aggregate competition consumer consumers cost costs curve demand economic economy elasticity export firm
        firms fiscal gdp goods income inflation labor marginal market markets monetary money monopoly price
        prices revenue supply tax taxes trade unemployment wage wages
    """,
    "business": """
        accounting annual assets balance bonds business cash company corporation customer customers depreciation
        discount dividend insurance interest inventory investment investor invoice liabilities loan management
        manager marketing mortgage partner payment premium profit rate sales shares stock
    """,
    "law": """
        agreement amendment attorney breach constitution constitutional contract contracts court crime criminal
        damages deed defendant easement evidence international judge jurisdiction jury law lawsuit legal
        liability murder negligence owner plaintiff property rights statute tort treaty trial witness
    """,
    "history": """
        american ancient british century chinese civilization cold colonial emperor empire french german
        government independence king military nation party policy political president revolution roman slavery
        soviet state states treaty union war
    """,
    "philosophy": """
        argument arguments belief conclusion ethical ethics fallacy god kant knowledge logic moral morality
        philosopher philosophy predicate premise premises proposition religion religious true truth utilitarian
        valid virtue
    """,
    "computing": """
        algorithm algorithms api array binary bit bits byte cache class client code compiler complexity css
        database docker git hash html java javascript json linux list loop memory model network neural object
        operating packet program programming protocol python queue recursion runtime server sql stack string
        system tcp training tree variable
    """,
    "writing": """
        article blog character creative dialogue draft edit email essay headline letter novel outline paragraph
        poem proofread rephrase rewrite script slogan story style summarize summary title tone translate
        translation write
    """,
    "conversation": """
        advice could describe explain hello help hi like me my please recommend suggest tell thanks want would
        you your
    """,
    "everyday sums": """
        age altogether apples bought boys buys cost costs day days dollars each earns eggs fewer friends gave
        girls half has hour hours left less many more much older paid remaining school sells spend spent
        students times total twice week weeks
    """,
    "asking": """
        what when where which who whom whose
    """,
    "reasoning": """
        assume because calculate compute derive determine evaluate explain find given how justify prove show
        since solve suppose therefore why
    """,
    "negation": """
        cannot except false incorrect neither never no none nor not without
    """,
    "programming words": """
        assert async await bool break const def elif else enum except float for from func if import int lambda
        let none null print private public return self static struct try type void while with yield
    """,
}
