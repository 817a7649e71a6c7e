"""More words of each field, and each with its plural: wider than `lexicon.py`, and less sure.

Written by hand from general knowledge, for fields of study and of work, whatever data Lumen is measured on.
"""

from __future__ import annotations

FIELDS: dict[str, str] = {
    "chemistry": """
        acetate acetic acetone acid acidic acidity activation adsorption alcohol aldehyde aliphatic alkali
        alkaline alkane alkene alkyne aluminum amine ammonia ammonium anion anode aqueous aromatic arsenic atom
        atomic barium base benzene bicarbonate boiling bond bonding bromide bromine buffer butane butyl calcium
        calorimeter carbon carbonate carbonyl carboxylic catalyst cathode cation chemical chemistry chiral
        chloride chlorine chromatography co2 cobalt colloid combustion complexes compound conjugate copper
        covalent crystal cyanide decomposition dissociation dissolve distillation ec electrochemical electrode
        electrolysis electrolyte electron electronegativity element empirical endothermic enthalpy entropy
        equilibrium equivalence ester ethane ethanol ether ethyl ethylene exothermic fluoride fluorine
        formaldehyde formic formula freezing gas gibbs glucose gram h2 h2o h2so4 halide halogen hcl helium
        hexane hno3 homolytic hybridization hydrocarbon hydrogen hydrolysis hydrolyzed hydroxide indicator inert
        iodide iodine ion ionic ionization iron isomer isotope kcl ketone kmno4 koh ksp lattice lead ligand
        liquid lithium litmus magnesium manganese melting mercury metal methane methanol methyl molal molality
        molar molarity mole molecular molecule n2 nacl naoh neon neutralization nh3 nickel nitrate nitric
        nitrite nitrogen nmr nonmetal nucleophile nucleophilic o2 octane orbital organic osmotic oxalate oxidant
        oxidation oxide oxidized oxidizing oxygen palladium paramagnetic pentane periodic permanganate peroxide
        ph phenol phosphate phosphoric phosphorus pka platinum polar polymer potassium precipitate propane
        propanol pvc radical radioactive radium reactant reaction reagent redox reducing reduction resin salt
        saturated silicon silver sn1 sn2 sodium solid solubility soluble solute solution solvent spectroscopy
        spontaneous stereochemistry stoichiometric stoichiometry stp strontium sublimation substituent sulfate
        sulfide sulfur sulfuric synthesis tin titrate titrated titration toluene uranium valence vapor
        vaporization volatile xenon xylene yield zinc
    """,
    "physics": """
        accelerate acceleration alpha amplitude angular antenna aperture astronomical ballistic barometer
        battery beta blackbody bohr bullet buoyancy buoyant cannon capacitance capacitor celsius center
        centripetal charge charged circuit classical coil collide collision compton concave conductor constant
        convex cosmic coulomb coupling cyclotron decay decibel density deuteron dielectric diffraction dipole
        displacement doppler drag earth eclipse eigenstate elastic electric electromagnetic electron
        electrostatic emission energy ev excited fermi field fission flux focal focus force frequency friction
        fringe fusion galaxy gamma gauge gauss gravitation gravitational gravity hamiltonian harmonic heat
        height hertz horizontal horizontally hydrogen impulse incident incline inclined inductance induction
        inductor inelastic inertia infrared insulated intensity interference interferometer joule kelvin kepler
        kev kilogram kinetic lagrangian laser lens light longitudinal lorentz luminosity magnet magnetic
        magnetism magnification magnitude mass maxwell mechanics meson meter mev mirror momentum moon motion
        muon neutrino neutron newton nucleus oersted optical optics orbit oscillate oscillating oscillation
        oscillator parallel particle pendulum period photoelectric photon pion pitch planck planet plasma
        polarization polarized positron potential pressure prism projectile proton pulley pulse quantum quark
        radiation radioactive radius reflected reflection refraction refractive relativistic relativity
        resistance resistor resonance rest rotate rotating rotation satellite scattering schrodinger sky slit
        sonometer sound space spaceship speed sphere spherical spin spring star static string sun superconductor
        telescope temperature tension tesla thermal thermodynamic thermometer torque trajectory transverse
        ultraviolet uniform universe vacuum velocity vertical vertically vibrate vibration viscous volt voltage
        watt wave wavefunction wavelength weight weightless wheel wire
    """,
    "engineering": """
        actuator adiabatic adiabatically admittance airfoil alloy alternator ampere amperes amplifier analog
        antenna armature attenuation axial axle bandwidth bar beam bearing bending biot blade boiler bolt
        boundary brake breaker btu cable cantilever capacitor carnot casting ceiling cfm chamber channel
        cladding clutch coefficient column combustor compressed compression compressor concrete condenser
        conduction conductivity control convection converter coolant cooling copper corrosion counter creep
        cutoff cycle cylinder cylindrical damper damping db dc deflection demodulation design diameter diesel
        differential diffuser diode discharge draft drain drill drive duct ductile dynamo efficiency elongation
        emf emitter engine entropy evaporator exchanger excitation exhaust expansion fahrenheit fan fatigue
        feedback feedwater ferrite fiber filter fin flange flow fluid flywheel footing foundation fracture frame
        freon frequency ft fuel furnace gage gain gear generator girder governor grashof groove head heater
        heating hollow horsepower hp hr humidity hydraulic hydraulics hz impedance impeller inlet instrument
        insulated insulation inverter isentropic isothermal jack jet joint junction kv kva kw laminar laplace
        lathe lb lbf lbm leakage lever linear link load logic lumped machine manometer material mechanism mesh
        microprocessor milling modulation modulus moisture moment motor mounted nand nozzle nusselt ohm ohms oil
        orifice oscillator outlet output overload panel parameter pf phase phasor pin pipe piping piston plate
        pole polytropic power prandtl psi psia pump radar rankine rated ratio reactance reactor rectifier
        refrigerant refrigeration refrigerator regenerator regulator reinforced reservoir resistor reversible
        reynolds rivet rod roller rotor rpm saturated screw sec sensor series servo shaft shear shell shunt
        signal sinusoidal slab slip slope slot soil spar specimen spring stability stainless stall stator steam
        steel stiffness strain stress structure superheated surface suspension switch synchronous tank tensile
        terminal thermocouple thickness throttle throttling torque torsion torsional transducer transfer
        transformer transistor transmission transmittance transmitter truss tube turbine turbulent turns
        unsteady valve vane vessel vibrate viscosity voltage volts wall weir weld welded winding wire worm
    """,
    "mathematics": """
        abelian absolute addition adjoint affine algebra algebraic analytic angle antiderivative arc area
        arithmetic asymptote axiom axis banach basis bijection bijective binomial bisector bounded calculus
        cardinality cauchy chord circle circumference closed coefficient cofactor column combinatorial
        combinatorics commutative compact complement complex composite concave cone congruent conjugacy
        conjugate connected continuous contour converge convergence convergent converges convex coordinate
        coprime cos coset cosine countable cube cubic curl curvature curve cyclic cyclotomic cylinder decimal
        definite degree denominator dense derivative determinant diagonal diagonalizable diameter differentiable
        differential digit dimension dimensional discriminant disjoint distinct distribution diverge divergence
        divides divisible divisor domain eigenvalue eigenvector ellipse endpoint equation equilateral
        equivalence euclidean euler even expansion exponent exponential expression factor factorial
        factorization fibonacci field finite fourier frac fraction function functional galois gcd generator
        geometric geometry gradient graph hexagon hilbert homeomorphic homogeneous homology homomorphism
        hyperbola hyperbolic hypotenuse ideal identity imaginary improper increasing independent induction
        inequality infinite infinity infty injective inner int integer integrable integral integrate intercept
        intersect intersection inverse invertible irrational irreducible isometry isomorphic isomorphism
        iteration jacobian jordan kernel lagrange laplacian lattice lcm lebesgue leq lim limit linear linearly
        lipschitz ln log logarithm manifold map mapping mathbb mathbf mathrm matrices matrix maximal maximum
        measurable median metric midpoint minimal minimum modulo monic monotone multiple multiplication
        multiplicative multiplicity nilpotent nonnegative nonzero norm normal nullity numerator odd open
        operator orthogonal orthonormal parabola parallelogram parametric partial partition path pentagon
        perimeter permutation perpendicular pi planar plane point pole polygon polyhedron polynomial positive
        prime product projection proof quadrant quadratic quadrilateral quaternion quotient radian radius rank
        rational real rectangle rectangular recurrence reflexive remainder residue rhombus riemann ring rotation
        scalar semicircle sequence series set sigma simplify simpson sin sine singular solvability solvable
        space span sphere sqrt square stokes subgroup subset subspace substitution subtraction sum supremum
        surface surjective symmetric symmetry tan tangent taylor tensor tetrahedron theorem topological topology
        torus trace transcendental transform transpose trapezoid triangle triangular trigonometric trivial union
        unique vector vertex vertices volume wronskian zero
    """,
    "statistics": """
        anova average bayes bayesian bernoulli bias binomial card coin combination conditional confidence
        correlated correlation covariance data deck degrees deviation dice die distributed distribution draw
        drawn estimate estimator event expectation expected exponential frequency gaussian heads histogram
        hypothesis independent interval kurtosis likelihood marble margin markov mean median mode moment null
        outcome outlier percentile permutation poisson population posterior prior probability proportion
        quantile quartile random randomly regression replacement residual sample sampling score significance
        significant skewness standard statistic statistical statistics stochastic student survey tails toss
        tossed trial unbiased uniform urn variable variance
    """,
    "biology": """
        aerobic algae allele amino amphibian anaerobic anatomy animal antibody antigen aorta arthropod asexual
        autosomal axon bacteria bacterial bacteriophage bacterium bird blood body bone brain cell cellular
        cellulose chlorophyll chloroplast chordate chromatid chromatin chromosome cilia clone cloning codon
        coelom crossing crossover cytoplasm cytosine darwin digestion digestive dihybrid dioxide diploid
        diversity dna dominant drosophila ecological ecology ecosystem ectoderm egg embryo embryonic endocrine
        endoderm enzyme epithelial epithelium erythrocyte estrogen eukaryote eukaryotic evolution evolutionary
        excretion extinct fern fertile fertilization fetus filament fish fitness flagella flower fly food forest
        fossil frog fruit fungi fungus gamete ganglion gene genetic genome genotype genus germ gill gland golgi
        growth guanine habitat haploid hemoglobin herbivore heredity heterozygote heterozygous homeostasis
        homologous homozygous hormone host human hybrid hyphae immune immunity inbreeding inheritance inherited
        insect insulin interphase intestine invertebrate kidney kingdom krebs larva leaf leaves life linkage
        lipid liver lung lymph lymphocyte lysosome mammal marine mate mating meiosis membrane mendel mendelian
        mesoderm metabolic metabolism metaphase microbe microorganism mitochondria mitochondrion mitosis mitotic
        molecular moss muscle mutant mutation myosin natural nephron nerve nervous neuron niche nucleotide
        nucleus nutrient offspring operon organ organelle organism osmosis ovary ovum oxygen pancreas parasite
        parent pathogen pea pedigree peptide phenotype phenotypic phloem photosynthesis phylogenetic phylum
        pituitary placenta plankton plant plasma plasmid pollen pollination polymerase polypeptide population
        predation predator prey primate progeny prokaryote prokaryotic protein protozoa receptor recessive
        recombinant recombination red reflex reproduce reproduction reproductive reptile respiration respiratory
        reticulum retina ribosome rna root secretion seed segregation selection sex sexual shoot skeletal
        skeleton skin soil species sperm spinal spindle spore stem stomach stomata succession survive symbiosis
        synapse synaptic taxonomy telophase testosterone thymine thyroid tissue trait transcription transduction
        translation trna trophic tropical uracil urea urine uterus vaccine vacuole variation vascular vertebrate
        virus vitamin water worm xylem yeast zygote
    """,
    "medicine": """
        abdominal abscess acute admission adult allergic allergy anemia anesthesia aneurysm angina antibiotic
        antihypertensive aorta arrhythmia arterial artery arthritis aspirin asthma autopsy bilateral biopsy
        bladder bleeding blood bmi bowel breast breath bronchitis cancer carcinoma cardiac cardiology care
        catheter cerebral chest cholesterol chronic cirrhosis clinic clinical colon coma complaint complication
        congenital constipation cough cranial ct dementia dental dermatitis dermatology diabetes diabetic
        diagnose diagnosed diagnosis dialysis diarrhea diastolic disease disorder doctor dosage dose drug
        dyspnea ecg edema elderly emergency epilepsy examination fatigue fever fibrillation fracture gastric
        headache healthcare heart hemorrhage heparin hepatic hepatitis hernia hiv hospital hypertension
        hypotension ibuprofen illness infant infarction infected infection infectious inflammation inflammatory
        influenza injection injury intake intravenous ischemia jaundice joint laboratory lesion leukemia
        leukocyte lumbar lymphoma malaria malignant medical medication medicine melanoma meningitis metastasis
        mg microscopy migraine mmhg mortality mri murmur nausea nephropathy neurologic neurology neuropathy
        nurse nursing nutrition obese obesity oncology oral organ orthopedic outpatient pain palpation palsy
        pathology patient pediatric penicillin pharmacist pharmacology physician placebo pneumonia postoperative
        pregnancy pregnant prescribe prescribed prescription prognosis prophylaxis prostate psychiatric
        pulmonary pulse radiation radiograph rash rectal relapse renal respiratory seizure sepsis serum smoker
        spleen stenosis steroid stroke surgeon surgery surgical swelling symptom syndrome syphilis systolic
        tenderness tendon therapy thorax thrombosis thyroid transplant trauma treat treatment tuberculosis tumor
        ulcer ultrasound unconscious urinary urine vaccination vaccine vein venous ventricular vertebra viral
        vomiting ward wound
    """,
    "psychology": """
        abnormal abuse adaptation addiction addictive adler adolescence adolescent affective aggression
        aggressive altruism amnesia anxiety anxious appraisal aptitude arousal assessment attachment attention
        attitude attribution autism autonomy aversion avoidance bandura behavior behavioral behaviorism bias
        bipolar bystander career caregiver child childhood children client clinician coercion cognition
        cognitive compliance compulsive conditioned conditioning conformity conscious consciousness consultation
        coping counseling counselor cultural deindividuation delusion denial depressed depression deprivation
        desensitization development developmental diagnostic disability discrimination dissociative dissonance
        distress dream dsm ego emotion emotional empathy employee environment erikson esteem ethical experiment
        extinction extraversion extrovert family fear freud freudian frustration gender gestalt group guilt
        habit habituation hallucination heuristic hypnosis hypothalamus identity impulse infant inhibition
        insight instinct instrumental intellectual intelligence interpersonal intervention interview intrinsic
        introvert iq job jung kohlberg language latent learned learning maladaptive marital maslow memory mental
        milgram mood mother motivation motivational motive narcissistic negative neurosis neurotic norm
        obedience observer obsessive operant panic parent parenting peer perceive perception perceptual
        performance permissive personality phobia piaget play practitioner prejudice prenatal preschool
        projection psychiatric psychiatrist psychoanalysis psychoanalytic psychodynamic psychological
        psychologist psychology psychometric psychopathology psychosis psychotherapist psychotherapy psychotic
        punishment questionnaire race racial recall recognition regression rehearsal reinforced reinforcement
        reinforcer relationship relaxation reliability repression resilience retention retrieval reward rogers
        role schema schizophrenia schizophrenic self sensation sensory sexual sibling skinner sleep social
        socialization stereotype stimulation stimuli stimulus stress subject subliminal suicidal suicide
        superego supervision supervisor symptom teacher temperament test therapeutic therapist therapy thorndike
        thought trait trauma trust unconditioned unconscious validity verbal visual vygotsky weber withdrawal
        women wundt
    """,
    "economics": """
        aggregate allocation antitrust arbitrage asset auction bank banking barter benefit boom borrower budget
        buyer capital capitalism capitalist cartel central commodity comparative competition competitive consume
        consumer consumption cost cpi credit crowding curve cyclical debt deficit deflation demand depreciate
        depression deregulation devaluation developing diminishing dollar duopoly earnings econometric economic
        economically economics economist economy elastic elasticity employment entrepreneur equilibrium excess
        exchange expansionary expenditure export externality factor factory federal fiscal fixed fluctuation
        foreign gdp globalization gnp gold good goods government growth heteroscedasticity hyperinflation imf
        import incentive income industrial industry inefficient inelastic inequality inferior inflation
        inflationary interest investment keynes keynesian labor laborer labour land lender lending liquidity
        loan macroeconomic manufacturer marginal market marx mercantilism microeconomic monetarist monetary
        money monopolist monopolistic monopoly multiplier national nominal oligopoly opec opportunity output
        ownership pareto planned policy poverty ppf price producer production productive productivity profit
        protectionism public purchasing quantity quota rationing recession recessionary regulation rent reserve
        resource revenue ricardo saving scarce scarcity securities seller service shortage slump smith socialism
        stagflation subsidy substitute supplier supply surplus tariff tax taxation taxpayer trade treasuries
        treasury unemployed unemployment union utility value velocity wage wealth welfare worker
    """,
    "business": """
        account accountant accounting accrual accrued acquisition administration advertisement advertising
        agency agent amount annual annually annuity appraisal appraised asset audit auditor balance bank
        bankrupt bankruptcy beta bill billing bond bookkeeping borrow borrowed brand branding broker brokerage
        budget business businessman buyer capital carrying cash ceo charge charity check checks clerk client
        commercial commission company compounded conglomerate consultant consulting contract corporate
        corporation cost coupon credit credited creditor csr currency customer daily deal dealer debit debt
        deduction deferred deposit deposited depreciation discount discounted distributor dividend earn earning
        ebit employee employer endorsement enterprise entry equipment equity estate ethics exchange executive
        expense face finance financed financial financing firm fiscal forecast franchise fund goodwill
        governance gross hedge hedging hire hiring income insurance insured insurer interest inventory invest
        invested investing investment investor invoice issue issued kpi landlord lease ledger lender liability
        liquid list loan logistics loss maker management manager managerial manufacturing margin markdown
        marketer marketing markup maturities maturity merchandise merger monthly mortgage mutual negotiable net
        nonprofit note occupancy office operating option organization organizational overdue overhead owed
        ownership par partner partnership patent pay payable payback paycheck payee paying payment payroll
        pension percent percentage personnel planning policy portfolio preferred premium present principal
        proceeds procurement productivity profit profitability profitable promissory promotion proprietor
        purchase purchased purchaser purchasing quarter quarterly quote receipt receivable redeem reimburse rent
        rental reputation resale retail retailer return revenue risk salaries salary sale salesman savings
        security segment semiannual semiannually share shareholder shipment shipping sold stakeholder startup
        stock stockholder stocks store strategic strategy supplier sustainability swap taxable taxes teller term
        trader transaction turnover tycoon underwriter vendor venture volatility warehouse warranty wholesale
        withdrawal withholding worth yearly yield
    """,
    "law": """
        accused acquittal act adjudicate admissibility admissible admission affidavit agency agreement
        allegation amendment appeal appellate arbitration arrest arson assault assignment attorney bail bailment
        battery beneficiary bequest breach burglary charge citizen civil claim clause compensatory complaint
        condemn confession congress consent consideration conspiracy constitution constitutional contract
        contractual convict convicted conviction copyright counsel counterclaim court covenant crime criminal
        custody damages deceased decision deed defamation default defendant defense detective discovery dismiss
        dispute district divorce doctrine due duress duty easement eminent enforceable enforcement enjoin
        equitable estate estoppel evict evidence execution executor exempt fault federal felony fiduciary fifth
        foreseeable fourteenth fraud grand grantee grantor guilty habeas hearsay heir homicide immunity impeach
        indictment infringement inheritance injunction innocent intent international invalid judge judgement
        judgment judicial judiciary jurisdiction jurisprudence juror jury justice landlord larceny law lawful
        lawsuit lawyer lease legal legally legislation legislative legislature lessee lessor liability liable
        libel license lien litigation magistrate malice manslaughter misdemeanor mistrial mortgage motion
        motorist murder negligence negligent nuisance oath objection offense offer officer ordinance owner parol
        parole patent penal penalty perjury plaintiff plea police possession precedent privacy privilege
        probable probate prosecute prosecution prosecutor punitive ratify reasonable rebut recover regulation
        remedy repeal rescission resident restitution ruling search seizure sentence slander sovereign speech
        standing state statute statutory strict sue sued suit supreme suspect tenancy tenant testator testify
        testimony theft title tort tortfeasor treaty trespass trial tribunal trust trustee unconstitutional
        unlawful venue verdict void voidable waiver warrant warranty will witness zoning
    """,
    "history and politics": """
        abolition africa african agricultural alliance ally america american ancient archaeological
        archaeologist aristocracy army asia assassinated athens aztec battle bc bce britain british bronze
        byzantine caesar campaign candidate capitalism catholic ce centuries century charter china chinese
        christian church citizen citizenship civil civilization colonial colonialism colonist colony communism
        communist confederate congress conquest conservative constitution coup crusade cuban culture czar
        declaration democracy democrat democratic dictator diplomacy diplomatic dynasty early east egypt
        egyptian elected election electoral emancipation embassy emperor empire england english enlightenment
        era ethnic europe european excavation expedition exploration fascism federalism federalist feudal
        feudalism foreign france french geopolitics german germany global government greece greek han hegemony
        historian historical history hitler holocaust ideology immigrant immigration imperial imperialism inca
        independence india indian indigenous industrialization invasion iraq iron islamic italian italy japan
        japanese jefferson jewish king kingdom korea latin leader league lenin liberal liberalism lincoln
        lobbying mao maya medieval mesoamerica mesopotamia middle military militia minister ministry missionary
        modern monarch monarchy mughal muslim napoleon nation nationalism nationalist nato nazi negotiation
        neolithic nobility nuclear occupation ottoman paleolithic papal parliament parliamentary party peace
        peasant persian philosopher plantation policy political politician politics pope population populism
        portuguese pottery prehistoric president presidential prime protestant prussia puritan queen rebellion
        reform reformation regime reign religious renaissance republic republican revolt revolution
        revolutionary roman rome roosevelt ruler rural russia russian samurai secession security senate senator
        settlement settler silk slave slavery social soldier soviet spain spanish stalin state stone suffrage
        sultan superpower temple territory terrorism terrorist theodore tomb totalitarian trade treaty tribe
        troops tsar turkey twentieth unification union united urban ussr utopia victory vietnam village vote
        voter voting war warfare washington weapon west western wilson women world
    """,
    "philosophy": """
        absolutism absurd aesthetics affirming agnostic altruism analogy antecedent antinomy argument aristotle
        atheism atman autonomy axiology being belief believer bentham buddha buddhism buddhist categorical
        causal causation cause christianity cicero circular commandment compatibilism conclusion confucius
        conscience consequent consequentialism contradiction deductive deontology descartes desire determinism
        dharma dialectic dilemma disjunction divine dualism duty egoism empiricism epicurus epistemic
        epistemology essence eternal ethical ethicist ethics evil existence existential existentialism faith
        fallacious fallacy false god goodness happiness hedonism hegel hinduism hume idealism immoral imperative
        implication inductive inference intrinsic intuition invalid islam jainism jesus judaism justification
        kant karma knowledge lie life locke logic logical logically meaning metaphysical metaphysics mill mind
        modus monism moral morality morally naturalism necessity nietzsche nihilism nirvana norm normative
        objection objective objectivism obligation ontological ontology opinion pain phenomenology philosopher
        philosophical philosophy plato pleasure pluralism ponens predicate premise proposition propositional
        qualia quantifier quran rationalism rationality realism reason relativism relativist religion religious
        rights ross scripture sensation singer skeptic skepticism socrates sophist soul sound spirit
        spirituality stoic stoicism subjective subjectivism suffering syllogism symbolic tautology theism
        theology theory thomson tollens torah transcendental truth utilitarian utilitarianism utility valid
        validity value vedas vegetarian vice virtue virtuous wisdom worship wrong
    """,
    "computing": """
        abstraction access ai algorithm allocate android ansible api app application architecture array ascii
        assembler assembly asymptotic atomic authentication aws azure backend backup bandwidth bash binary bios
        bit blockchain boolean boot branch browser buffer bug byte cache call callback cd certificate ci class
        classifier cli click client cloud cluster cnn code coding commit compile compiler complexity component
        compress computer concurrency concurrent config configuration configure connection constructor container
        context cookie cpu crash crypto cryptographic cryptography css csv cyber data database dataframe dataset
        deadlock debug debugging decode decryption dependency deploy deployment deserialize dev device
        dictionary dijkstra directory disk django dll dns docker domain download driver dynamic element email
        embedding encode encoding encrypt encryption endpoint epoch error ethernet exception exe executable
        execute express file filesystem firewall firmware flag flask folder fork fortran framework frontend
        function functional gateway git github golang google gpu gradient graph graphql gui hacker handler
        hardware hash hashing hashmap haskell header heap hidden hostname html http https ide identifier index
        inheritance input install instance instruction integer interface internet interpreter interrupt ip ipv4
        ipv6 iteration iterator java javascript jpeg json jupyter kernel keyboard kotlin kubernetes lan laptop
        latency layer library linux list localhost log login loop lstm macro malware matrix memory merge
        metadata method microservice microsoft middleware mobile model module mongodb multithreading mutex mysql
        namespace nested network neural nginx node nosql npm null numpy object oop opcode operand optimizer
        oracle os output overfitting overflow overload package packet page pagination pandas parse parser
        password patch perceptron permission php pip pipeline pixel plugin pointer polymorphism popup port
        postgres powershell precision prefix preprocess prime process processor production program programmer
        programming prompt protocol proxy pseudocode push python pytorch query queue quicksort ram react
        recursion recursive refactor regex register registry relational render repo repository request response
        rest restful rfc router routing ruby runtime rust saas sandbox scala scheduler schema scraper screen
        script sdk search semaphore serialize server session shell smtp socket software sort sorted sorting
        source spark sparse spring sql ssh ssl stack stdin stdout stream string struct subclass subnet substring
        svm swift switch symlink synchronization syntax system tcp template tensorflow terminal thread timeout
        timestamp tls token toolkit traceback training transformer traversal tree trojan tuple turing typescript
        ubuntu udp ui unicode unix upload uri url usb user username validation variable vector version virtual
        virtualization vpn vulnerability web webpack webpage website wifi windows wrapper xml yaml zip
    """,
    "geography and earth": """
        africa altitude antarctic arctic asia atlantic atmosphere atmospheric basin beach biome border capital
        carbon climate cloud coast coastal continent continental continents countries country crust current
        delta desert drought earth earthquake equator erosion erupt eruption fault flood forest fossil
        geographic geographical geography geologic geological geology glacier global greenhouse gulf hemisphere
        hurricane igneous island lake landform landscape latitude lava limestone longitude magma mantle map
        metamorphic meteorologist mineral monsoon mountain ocean oceanic ozone pacific peninsula plate plateau
        pollution precipitation rain rainfall rainforest region ridge river rock sand sea seasonal sediment
        sedimentary seismic snow soil storm strait stratosphere tectonic temperature terrain tide timezone
        topography tornado tropical troposphere tsunami tundra valley vegetation volcanic volcano watershed
        weather weathering wetland wildlife wind
    """,
    "arts and entertainment": """
        actor actress album anime architect artist artistic athlete audience author ballet band baroque baseball
        basketball bollywood boxing broadway camera cartoon cast celebrity champion championship chess
        choreography cinema classic club coach comedy comic composer composition concert cook cooking costume
        cricket cup dance dancer director disney documentary drama drawing episode fantasy fashion festival film
        football game genre goal golf guitar hero hockey hollywood horror instrument jazz league literary
        literature lyrics magazine manga marvel match melody movie museum music musical musician nba nfl
        nintendo novelist olympic opera orchestra oscar painter painting performance photograph photography
        piano playstation playwright podcast poet poetry pokemon pop portrait producer quarterback radio rap
        recipe record reggae rhyme rock role sculptor sculpture season series show singer sitcom soccer
        soundtrack sport stadium star studio superhero symphony team television tennis theater theatre
        tournament trilogy tv verse video villain violin xbox youtube
    """,
    "writing": """
        abstract academic adjective advert announcement article bio blog bullet caption chapter character cite
        clearer comma concise copy cover creative critique dialogue draft edit email engaging essay excerpt
        fiction formal format grammar grammatically haiku headline improve informal intro introduction
        invitation job keyword letter limerick linkedin narrative narrator newsletter noun novel outline
        paragraph paraphrase persona persuasive phrase plot poem polish post press professional proofread
        protagonist publish rephrase report resume review rewrite scene screenplay script sentence seo short
        slogan song speech spelling story storytelling style subtitle summarize summary synonym tagline text
        title tone topic translate translation tweet verb vocabulary word write writer written
    """,
    "conversation": """
        advice anything awesome bored boyfriend could cute dear describe dream favorite feel feeling friend fun
        funny girlfriend glad goodbye guess happy hello help hey hi hobby hope husband i idea joke kind know
        like love maybe me mom morning my myself need nice ok okay opinion partner party pet plan please prefer
        pretend recommend recommendation roleplay sad share should sorry suggest suggestion talk tell thank
        thanks think tip today tomorrow tonight travel trip understand vacation want welcome wife wish wonder
        would yes you your yourself
    """,
    "everyday sums": """
        age ago altogether apple apples average bag ball basket book bottle bought bowl box boxes boys bus buy
        buys cake candy car cat chicken chocolate classroom coin collect collected cookie cost costs cow cup cut
        day days dog dollars dozen drive drove each earn earns eat eats egg eggs equal extra farm farmer fewer
        finish flower friends gallon game gave girls give half harvest has hour hours hundred inches john kids
        left less make many marbles mary mile minute minutes money month more mph much neighbor nickel number
        older orange ounce page paid paint pair park pencil pens people per pie pieces pizza plate pound quarter
        ran reads remaining rest ride rides room rope row run sandwich save saved saves school sells share shirt
        shop spend spends spent store student students swim third ticket tim times together tom took total toy
        tree trip twice walk walks week weekend weekly weeks work worked yard year years younger
    """,
}
